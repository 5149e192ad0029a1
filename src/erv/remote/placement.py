"""Which stages run elsewhere: `machine.placement`, against the stages of `dvc.yaml`; what they need there."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from erv.pipeline import PipelineStage, TargetError, select


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
            f"machine.placement names {', '.join(unknown)}, which is no stage of dvc.yaml; expected some of"
            f" {names}, or one stage such as {stages[-1].name}"
        )
    found = {stage.name: placement.get(stage.name, placement.get(stage.group)) for stage in stages}
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
