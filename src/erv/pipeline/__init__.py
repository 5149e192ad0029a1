"""The DVC pipeline: its graph, one stage of it at a time, and what came of it. Knows nothing of Prefect."""

from erv.pipeline.graph import PipelineError, PipelineStage, read_lock, read_stages, select
from erv.pipeline.run import (
    StageCancelledError,
    StageFailedError,
    StageResult,
    dvc_command,
    push,
    repro,
    run_guarded,
    workspace_lock,
)

__all__ = [
    "PipelineError",
    "PipelineStage",
    "StageCancelledError",
    "StageFailedError",
    "StageResult",
    "dvc_command",
    "push",
    "read_lock",
    "read_stages",
    "repro",
    "run_guarded",
    "select",
    "workspace_lock",
]
