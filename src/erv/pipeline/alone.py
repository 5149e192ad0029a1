"""Whether a stage can run alone: what it reads from other stages must be there and up to date."""

from __future__ import annotations

from collections.abc import Sequence
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
    faults = [
        f"{output} of {other.name} is {'out of date' if (Path(workspace) / output).exists() else 'missing'}"
        for other in needed
        if other.name in stage.upstream and other.name not in unchanged.names
        for output in other.outputs
        if _reads(stage, output)
    ]
    if faults:
        raise PipelineError(
            f"{stage.name} can't run alone: {'; '.join(faults)}; `erv run {stage.name}` brings that up to"
            " date, `dvc pull` fetches what was made elsewhere"
        )


def _reads(stage: PipelineStage, output: str) -> bool:
    """Whether an output is among a stage's dependencies, inside one of them, or the folder of one."""
    return any(
        output == path or output.startswith(f"{path}/") or path.startswith(f"{output}/")
        for path in stage.dependencies
    )
