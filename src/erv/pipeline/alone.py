"""Whether a stage can run alone: what it reads from other stages must be there and up to date."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from erv.pipeline.graph import PipelineStage
from erv.pipeline.lock_file import PipelineError
from erv.pipeline.unchanged import Unchanged


def check_inputs(
    stage: PipelineStage, needed: Sequence[PipelineStage], unchanged: Unchanged, workspace: str | Path = "."
) -> None:
    """Makes sure that nothing upstream of a stage would have to run.

    Args:
        stage: the stage that is to run alone.
        needed: it and all that it needs, from `select`.
        unchanged: what DVC says of them.
        workspace: the top of the repository.

    Raises:
        PipelineError: an input is missing or out of date; the message names each with its stage.
    """
    faults = []
    for name, late in late_inputs(stage, needed, unchanged.names).items():
        (other,) = [item for item in needed if item.name == name]
        for output in filter(lambda output: _reads(stage, output), other.outputs):
            if not (Path(workspace) / output).exists():
                faults.append(f"{output} of {name} is missing")
            elif late == [name]:
                faults.append(f"{output} of {name} is out of date")
            else:
                faults.append(f"{output} of {name} may be out of date, as {', '.join(late)} isn't up to date")
    if faults:
        raise PipelineError(
            f"{stage.name} can't run alone: {'; '.join(faults)}; `erv run {stage.name}` brings that up to"
            " date, `dvc pull` fetches what was made elsewhere"
        )


def late_inputs(
    stage: PipelineStage, needed: Sequence[PipelineStage], unchanged: Collection[str]
) -> dict[str, list[str]]:
    """The stages that a stage reads from and that aren't up to date, each with those that keep it from that.

    Args:
        stage: the stage that is to run alone.
        needed: it and all that it needs, from `select`: each after all that it depends on.
        unchanged: the names of stages that need nothing themselves.
    """
    late: dict[str, list[str]] = {}
    for other in needed:
        above = [name for upstream in other.upstream for name in late.get(upstream, ())]
        own = [] if other.name in unchanged or above else [other.name]
        if found := list(dict.fromkeys([*above, *own])):
            late[other.name] = found
    return {name: late[name] for name in stage.upstream if name in late}


def _reads(stage: PipelineStage, output: str) -> bool:
    """Whether an output is among a stage's dependencies, inside one of them, or the folder of one."""
    return any(
        output == path or output.startswith(f"{path}/") or path.startswith(f"{output}/")
        for path in stage.dependencies
    )
