"""Stores in DVC's remote what a version is made of before it is registered, so that all its links hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.errors import ErvError, RegistryError, StackError
from erv.lineage.links import LinkChecker
from erv.stack.dvc_remote import (
    REMOTE,
    default_remote,
    remote_without_keys,
    stores,
    write_dvc_remote,
)
from erv.stack.one_origin import check_servers
from erv.stack.stored import all_stored


def store_outputs(
    environment: Environment,
    entries: Mapping[str, Mapping[str, Any]],
    needed: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Pushes what DVC's remote lacks, then looks whether it has every output of the needed stages.

    `dvc push` alone can't tell: it passes over what is missing in the cache too. In a default remote that
    isn't ours, nothing is looked up.

    Args:
        environment: where the remote is; if no object store is named anywhere, nothing is done but to say so.
        entries: of `dvc.lock`, by stage.
        needed: the stages whose outputs the version is made of.
        say: takes a sentence.

    Raises:
        RegistryError: the remote can't be reached or refuses, or still lacks an output; or the clone has a
            store that this process doesn't name.
    """
    try:
        check_servers(environment, ("S3",))
        if fault := remote_without_keys(environment):
            raise StackError(fault)
        if not stores(environment):
            say("no object store is configured: outputs stay here, and nobody else can verify the version")
            return
        write_dvc_remote(environment)
        if all_stored(environment):
            return
        say("storing the outputs that DVC's remote lacks")
        pipeline.push(environment=child_environment(environment), workspace=environment.workspace)
    except ErvError as error:
        raise RegistryError(f"nothing was registered, as its outputs can't be stored: {error}") from error
    if default_remote(environment.workspace / ".dvc") != REMOTE:
        return
    checker = LinkChecker(environment)
    present = pipeline.of_these_stages(entries, environment.workspace)
    for name in needed:
        for out in entries[name].get("outs") or []:
            link = checker.output(out["path"], out.get("md5"))
            if link.ok is not True and "md5" in out:
                # DVC pushes nothing of a stage that it doesn't know.
                remedy = (
                    f"run `dvc repro {name}`, or `dvc push` where it was made"
                    if name in present
                    else "put that stage back into dvc.yaml and params.yaml, then publish again"
                )
                raise RegistryError(
                    f"nothing was registered, as DVC's remote still lacks {out['path']} of {name} after"
                    f" a push ({link.detail}); {remedy}"
                )
