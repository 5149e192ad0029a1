"""Which stages run elsewhere: `machine.placement` and what a run was given beside it, against the stages of
`dvc.yaml`; what they need there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from erv.errors import SettingsError
from erv.pipeline import PipelineStage, TargetError, select
from erv.settings import Settings
from erv.settings.machine import pool_for
from erv.settings.pool_name import check_pool_name


def read_placement(texts: Sequence[str]) -> dict[str, str]:
    """What a run was given: `grpo=gpu` sends a step or stage to a work pool.

    Raises:
        SettingsError: a text isn't of that form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, pool = text.partition("=")
        if not name or not pool:
            raise SettingsError(f"placement {text!r}: expected STAGE=POOL, such as grpo=gpu")
        try:
            check_pool_name(pool)
        except SettingsError as error:
            raise SettingsError(f"placement {text!r}: {error}") from None
        if name in found:
            raise SettingsError(f"placement: {name} is given twice; name one work pool for it")
        found[name] = pool
    return found


def with_placement(settings: Settings, given: Mapping[str, str]) -> Settings:
    """The settings, with what a run was given before `machine.placement`.

    Args:
        settings: of `params.yaml`.
        given: from `read_placement`; a step counts for all its stages, whatever the file says of them.
    """
    own = settings.machine.placement
    kept = {name: pool for name, pool in own.items() if name.partition("@")[0] not in given}
    machine = settings.machine.model_copy(update={"placement": {**kept, **given}})
    return settings.model_copy(update={"machine": machine})


def places(stages: Sequence[PipelineStage], placement: Mapping[str, str]) -> dict[str, str]:
    """The work pool of each stage that runs elsewhere.

    Args:
        stages: all of `dvc.yaml`.
        placement: `machine.placement`; a stage (`grpo@erv`) counts before its step (`grpo`).

    Raises:
        TargetError: it names no stage.
    """
    known = {stage.name for stage in stages} | {stage.group for stage in stages}
    if unknown := sorted(set(placement) - known):
        names = ", ".join(dict.fromkeys(stage.group for stage in stages))
        raise TargetError(
            f"placement names {', '.join(unknown)}, which is no stage of dvc.yaml; expected some of"
            f" {names}, or one stage such as {stages[-1].name}"
        )
    found = {stage.name: pool_for(stage.name, placement) for stage in stages}
    return {name: pool for name, pool in found.items() if pool}


def read_from(stage: PipelineStage, stages: Sequence[PipelineStage]) -> tuple[str, ...]:
    """The stages whose outputs must be there for a stage to run.

    More than those that it depends on: `grpo` reads manifests and shards, but depends on the hashes of the
    part that it reads, which another stage writes. So what its command names counts, too.

    Args:
        stage: the stage.
        stages: all of `dvc.yaml`.
    """
    words = [word for part in shlex.split(stage.command) for word in part.split("=")]
    read = {*stage.dependencies, *words}
    before = [other for other in select(stages, [stage.name]) if other.name != stage.name]
    return tuple(
        other.name
        for other in before
        if any(_touch(output, path) for output in other.outputs for path in read)
    )


def _touch(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
