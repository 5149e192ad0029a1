"""The DVC pipeline: its graph, one stage of it at a time, and what came of it. Knows nothing of Prefect."""

from erv.pipeline.accepted import ACCEPTED, Acceptance, AcceptedFile, add_accepted, behind, read_accepted
from erv.pipeline.alone import check_inputs, late_inputs
from erv.pipeline.ancestry import (
    MANIFESTS,
    QUARANTINES,
    Files,
    Input,
    Listing,
    ancestors,
    digest_of_files,
    in_use,
    inputs_of,
    named_in_parameters,
    of_bundle,
    registered,
)
from erv.pipeline.changes import ABSENT, ChangedFile, ChangedParameter, StageChanges, quiet_dvc, read_changes
from erv.pipeline.commit import commit_dependencies
from erv.pipeline.dead_holders import release_dead_holders
from erv.pipeline.given_entry import missing_from_remote, take_entry
from erv.pipeline.graph import (
    PipelineStage,
    TargetError,
    check_definitions,
    named,
    one_stage,
    read_stages,
    select,
)
from erv.pipeline.in_remote import restorable_from_remote
from erv.pipeline.leftovers import of_these_stages, overlap, set_aside, written_paths
from erv.pipeline.lock_file import PipelineError, keep_lock, lock_fault, read_lock_entries, repair_lock
from erv.pipeline.run import (
    StageCancelledError,
    StageFailedError,
    StageResult,
    dvc_command,
    one_pipeline_at_a_time,
    pull_outputs,
    push,
    push_outputs,
    repro,
    run_guarded,
)
from erv.pipeline.unchanged import Unchanged, ask_unchanged

__all__ = [
    "ABSENT",
    "ACCEPTED",
    "MANIFESTS",
    "QUARANTINES",
    "Acceptance",
    "AcceptedFile",
    "ChangedFile",
    "ChangedParameter",
    "Files",
    "Input",
    "Listing",
    "PipelineError",
    "PipelineStage",
    "StageCancelledError",
    "StageChanges",
    "StageFailedError",
    "StageResult",
    "TargetError",
    "Unchanged",
    "add_accepted",
    "ancestors",
    "ask_unchanged",
    "behind",
    "check_definitions",
    "check_inputs",
    "commit_dependencies",
    "digest_of_files",
    "dvc_command",
    "in_use",
    "inputs_of",
    "keep_lock",
    "late_inputs",
    "lock_fault",
    "missing_from_remote",
    "named",
    "named_in_parameters",
    "of_bundle",
    "of_these_stages",
    "one_pipeline_at_a_time",
    "one_stage",
    "overlap",
    "pull_outputs",
    "push",
    "push_outputs",
    "quiet_dvc",
    "read_accepted",
    "read_changes",
    "read_lock_entries",
    "read_stages",
    "registered",
    "release_dead_holders",
    "repair_lock",
    "repro",
    "restorable_from_remote",
    "run_guarded",
    "select",
    "set_aside",
    "take_entry",
    "written_paths",
]
