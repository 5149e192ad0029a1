"""Whether stages that `machine.placement` sends elsewhere would get there, and their results back."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

from erv.doctor.finding import Finding, some
from erv.environment import Environment
from erv.errors import SettingsError, StorageError
from erv.remote.board import PREFIX
from erv.remote.commit import CommitError, changes_to_carry, commit_of
from erv.remote.placement import places
from erv.tracking.opening import PLACED_VARIABLE


def placement(environment: Environment) -> Iterator[Finding]:
    """The stages, the pools with their workers, the commit and the board; nothing if no stage is placed."""
    from erv.doctor.pools_ahead import look_at
    from erv.pipeline import read_stages
    from erv.settings import load_settings

    if left := os.environ.get(PLACED_VARIABLE):
        detail = f"{PLACED_VARIABLE}={left} is set in this shell, so `dvc repro` runs placed stages here"
        yield Finding("placement", "warn", detail, f"`unset {PLACED_VARIABLE}`, unless that is wanted")
    try:
        machine = load_settings(environment.workspace / "params.yaml").machine
    except SettingsError:  # which the finding on parameters has told
        return
    if not machine.placement:
        return
    sent: dict[str, list[str]] = {}
    for name, pool in places(read_stages(environment.workspace), machine.placement).items():
        sent.setdefault(pool, []).append(name)
    for ahead in look_at(environment, sent):
        detail = f"{some(list(ahead.stages))} in work pool {ahead.name}: {ahead.detail}"
        state = {"served": "ok", "missing": "fail"}.get(ahead.state, "warn")
        yield Finding("placement", state, detail, ahead.remedy)  # type: ignore[arg-type]
    yield from _commit(environment, carry=machine.carry_changes)
    yield from _board(environment)


def _commit(environment: Environment, *, carry: bool) -> Iterator[Finding]:
    """Whether what is checked out can be sent; uncommitted changes are everyday, but refused when sent."""
    try:
        commit_of(environment.workspace)
    except CommitError as error:
        sentence, _, remedy = str(error).rpartition("; ")
        yield Finding("placement", "fail", sentence or remedy, remedy if sentence else "")
        return
    try:
        patch = changes_to_carry(environment.workspace, carry=carry)
    except CommitError as error:
        sentence, _, remedy = str(error).partition(": a worker runs a commit; ")
        yield Finding("placement", "warn", f"{sentence}: no stage would be sent", remedy)
        return
    if patch is not None:
        detail = "uncommitted changes go along with placed stages (machine.carry_changes)"
        yield Finding("placement", "ok", detail)


def _board(environment: Environment) -> Iterator[Finding]:
    """Whether requests and results can be left for each other: writes an object and removes it."""
    from erv.storage.store import open_store

    uri = f"s3://{environment.dvc_bucket}/{PREFIX}/doctor/{uuid.uuid4().hex}"
    if not environment.has_storage:
        yield Finding("placement", "fail", "stages that run elsewhere need an object store", "name one")
        return
    try:
        store = open_store(environment, patient=False)
        store.write(b"", uri)
        store.delete(uri)
    except StorageError as error:
        sentence, _, remedy = str(error).partition("; ")
        yield Finding("placement", "fail", sentence, remedy)
        return
    where = f"s3://{environment.dvc_bucket}/{PREFIX}"
    yield Finding("placement", "ok", f"requests and results can be left in {where}")
