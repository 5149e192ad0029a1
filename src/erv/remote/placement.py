"""Which stages run elsewhere: `machine.placement`, against the stages of `dvc.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from erv.pipeline import PipelineStage, TargetError


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
