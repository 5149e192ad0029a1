"""What can be checked in seconds before hours of work start: settings, locks, servers, disk."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from erv.doctor import fit
from erv.doctor.gpus import Gpu, installed_gpus
from erv.doctor.judge_check import judge_faults
from erv.doctor.policy_sizes import PolicySizes
from erv.environment import Environment
from erv.errors import DataError, StackError, StorageError
from erv.files import read_document
from erv.labels import label_space_faults
from erv.libraries import require_locked
from erv.pipeline import PipelineError, PipelineStage
from erv.remote.placement import with_placement
from erv.settings import Settings, load_settings
from erv.settings.across import written_by_vllm
from erv.stack.dvc_remote import remote_without_keys
from erv.stack.one_origin import server_fault
from erv.stack.reach import unreachable

NEEDED_BYTES = 1_000_000_000

logger = logging.getLogger(__name__)


def check(
    environment: Environment, stages: Sequence[PipelineStage], placement: Mapping[str, str] | None = None
) -> Settings:
    """Checks everything that the stages will need.

    Args:
        environment: of the workspace.
        stages: those that will run.
        placement: what the run was given, which counts before `machine.placement`.

    Returns:
        The settings, with that placement.

    Raises:
        SettingsError: `params.yaml` has faults.
        PipelineError: something else is missing; the message lists everything.
    """
    settings = with_placement(load_settings(environment.workspace / "params.yaml"), placement or {})
    here = [stage for stage in stages if settings.machine.pool_of(stage.name) is None]
    faults = [
        *_unplaced(settings, stages),
        *_libraries(environment.workspace, settings.runtime.python),
        *_missing_files(environment.workspace, settings, stages),
        *label_space_faults(environment.workspace, settings.datasets),
        *teacher_faults(environment.workspace, settings, stages),
        *_caption_judge(settings, stages),
        *_unfitting(environment, settings, here),  # what other machines have can't be seen from here
        *_engine(environment, settings, here),
        *_judges(environment, settings, stages),
        *_servers(environment),
        *_store(environment),
        *_unreachable(environment),
        *_disk(environment.workspace),
    ]
    if faults:
        raise PipelineError(faults[0] if len(faults) == 1 else "\n".join(["not ready", *_bullets(faults)]))
    return settings


def _bullets(faults: Sequence[str]) -> list[str]:
    return [f"  - {fault}" for fault in faults]


def _unplaced(settings: Settings, stages: Sequence[PipelineStage]) -> list[str]:
    """What `params.yaml` asks for but the selected stages can't provide; only the last would notice."""
    names = {stage.name for stage in stages}
    faults = []
    if "report" in names:
        evaluated = settings.compare.policies
        faults += [
            f"compare.policies names {policy}: dvc.yaml has no {missing}; the matrices of grpo and evaluate"
            " should be ${compare.train} and ${compare.policies}"
            for policy in evaluated
            if (missing := ", ".join(stage for stage in _stages_of(policy, settings) if stage not in names))
        ]
        faults += [
            f"compare.train names {variant}, which would not be in the report; add it to compare.policies too"
            for variant in settings.compare.train
            if variant not in evaluated
        ]
    if "register" in names and settings.evaluate.split != "test":
        faults.append(
            f"evaluate.split is {settings.evaluate.split}, but register only accepts figures on test clips;"
            " run `erv run report`, or set it to test"
        )
    return faults


def _stages_of(policy: str, settings: Settings) -> list[str]:
    trained = policy in settings.compare.train
    return [*([f"grpo@{policy}"] if trained else []), f"evaluate@{policy}"]


def _missing_files(workspace: Path, settings: Settings, stages: Sequence[PipelineStage]) -> list[str]:
    """Dependencies that are missing and that no stage writes."""
    written = {output for stage in stages for output in stage.outputs}
    missing = {
        path
        for stage in stages
        for path in stage.dependencies
        if not (workspace / path).exists() and not _comes_from(path, written)
    }
    theirs = {str(workspace / arm.folder): arm.name for arm in settings.arms}

    def remedy(path: str) -> str:
        if str(workspace / path) in theirs:
            arm = theirs[str(workspace / path)]
            return f"the arm {arm} names it: give the folder of a policy, or take {arm} out of arms"
        return "run `erv data pin`" if path.startswith("data/sources") else "restore it from git"

    return [f"{path}: not found; {remedy(path)}" for path in sorted(missing)]


def teacher_faults(
    workspace: Path, settings: Settings, stages: Sequence[PipelineStage] | None = None
) -> list[str]:
    """What keeps a teacher from labelling; `distill` would only find out in the middle of a run.

    Args:
        workspace: top of the repository.
        settings: all parameters.
        stages: the stages that will run; without `distill`, nothing is checked. None means all.
    """
    if stages is not None and "distill" not in {stage.name for stage in stages}:
        return []
    from erv.distill.corpus import REFERENCE_FILE, SENTENCES_FILE
    from erv.settings.across import explained
    from erv.sources import Lock

    def has(source: str, start: str) -> bool:
        """Whether a pinned source has such files; an unpinned source is reported elsewhere."""
        path = workspace / "data" / "sources" / f"{source}.lock.json"
        return not path.is_file() or any(file.path.startswith(start) for file in Lock.load(path).files)

    source, faults = settings.roles.cold_start, []
    # Without explanations, the labels that come with the corpus are those of sentences without a clip.
    labels = REFERENCE_FILE if explained(settings) else SENTENCES_FILE
    if not explained(settings) and not settings.rollouts.policies and not has(source, SENTENCES_FILE):
        faults.append(
            f"roles.cold_start is {source!r}, which has no explanations, so the verifier has no sentence to"
            " learn from; set rollouts.policies: [sft] with an openai or local teacher, or add"
            f" {SENTENCES_FILE} to the {source} source and pin again"
        )
        return faults
    for index, teacher in enumerate(settings.distill.teachers):
        where = f"distill.teachers[{index}] ({teacher.name})"
        if teacher.kind == "reference" and not has(source, labels):
            faults.append(
                f"{where}: the {source} source has no {labels}; add it and pin again, or let an"
                " openai or local teacher label the sentences"
            )
        if teacher.kind == "local" and not has("base", f"{teacher.model}/"):
            faults.append(f"{where}: the base source has no folder {teacher.model}; add it and pin again")
        key = teacher.api_key_env if teacher.kind == "openai" else None
        # Sentences that it has already labelled need no key: someone who pulled them may not have one.
        if key and not os.environ.get(key) and not _has_labelled(workspace, teacher.name):
            faults.append(f"{where}: the environment variable {key} is not set; put the key in it")
    return faults


def _caption_judge(settings: Settings, stages: Sequence[PipelineStage]) -> list[str]:
    """What keeps the judge of captions from reading; `grounding` would find out after all evaluations."""
    judge = settings.grounding.judge
    key = judge.api_key_env if judge else None
    if judge is None or not key or os.environ.get(key) or "grounding" not in {stage.name for stage in stages}:
        return []
    return [
        f"grounding.judge ({judge.name}): the environment variable {key} is not set; put the key in it, or"
        " set api_key_env to null if the endpoint needs none"
    ]


def _unfitting(environment: Environment, settings: Settings, stages: Sequence[PipelineStage]) -> list[str]:
    """What can't fit the base policy or the GPUs here, before hours of extraction and training.

    Exceeding a memory estimate is only a warning, because it is an estimate. If the weights and the optimiser
    alone don't fit, that is a fault.
    """
    if not {"sft", "grpo"} & {stage.name.partition("@")[0] for stage in stages}:
        return []
    from erv.doctor.base_policy import base_family_fault, base_sizes

    try:
        wrong = base_family_fault(environment, settings.policy.family)
        if wrong is not None:  # the cold start, which is trained from it, would be of the wrong family too
            return [wrong]
        sizes = base_sizes(environment)
    except StorageError:  # reported by _store
        return []
    except DataError as error:
        return [str(error)]
    faults = fit.faults(settings, sizes) if sizes else []
    gpus = installed_gpus() if settings.runtime.device != "cpu" else ()
    certain, likely = gpu_faults(settings, sizes, gpus)
    for sentence in likely:
        logger.warning("%s; `erv doctor --gpu` measures it", sentence)
    return faults + certain


def _engine(environment: Environment, settings: Settings, stages: Sequence[PipelineStage]) -> list[str]:
    """Whether vLLM is installed, if grpo is to generate with it."""
    names = {f"grpo@{name}" for name in written_by_vllm(settings)}
    if names.isdisjoint(stage.name for stage in stages):
        return []
    from erv.training.grpo.engine.lacks import vllm_fault

    fault = vllm_fault(environment.workspace / settings.machine.grpo.vllm_python, environment.workspace)
    return [] if fault is None else [fault]


def _judges(environment: Environment, settings: Settings, stages: Sequence[PipelineStage]) -> list[str]:
    """Why a judge is refused; `evaluate` would only find out after GRPO."""
    paths = [environment.workspace / "data" / "sources" / f"{name}.lock.json" for name in ("judge", "base")]
    if not all(path.is_file() for path in paths) or not any(
        stage.name.startswith("evaluate@") for stage in stages
    ):
        return []
    from erv.sources import Lock

    try:
        own, base = (Lock.load(path) for path in paths)
        store = None
        if any(lock.uri.startswith("s3://") for lock in (own, base)):
            from erv.storage.store import open_store

            store = open_store(environment, patient=False)
        return judge_faults(environment.workspace, settings, (own, base), store, logger.info)
    except StorageError:  # reported by _store
        return []
    except DataError as error:
        return [str(error)]


def gpu_faults(
    settings: Settings, sizes: PolicySizes | None, gpus: Sequence[Gpu]
) -> tuple[list[str], list[str]]:
    """What certainly can't run on these GPUs, or without any, and what probably can't.

    Args:
        settings: all parameters.
        sizes: sizes of the base policy, None if they are not known.
        gpus: GPUs of this machine.
    """
    if not gpus:
        reasons = fit.needs_gpu(settings)
        return ([f"{', '.join(reasons)}: needs a GPU, and this run has none"] if reasons else []), []
    certain, likely = [], []
    processes = settings.machine.processes
    if len(gpus) > 1 and settings.machine.accelerate is None:
        certain.append(
            f"this machine has {len(gpus)} GPUs and machine.accelerate is null; set it and machine.processes"
            " to use them, or CUDA_VISIBLE_DEVICES to use one"
        )
    if processes > len(gpus):
        certain.append(f"machine.processes is {processes}, but this machine has {len(gpus)} GPU(s); lower it")
    if sizes is not None:
        available = min(gpu.memory_bytes for gpu in gpus)
        sure = fit.memory_faults(settings, sizes, available, certain=True)
        certain += sure
        likely = [item for item in fit.memory_faults(settings, sizes, available) if item not in sure]
    return certain, likely


def _has_labelled(workspace: Path, teacher: str) -> bool:
    """Whether the existing sentences come from this teacher, alone or with others."""
    summary = workspace / "data" / "sentences.json"
    return summary.is_file() and teacher in read_document(summary, "distill").get("teachers", {})


def _comes_from(path: str, written: set[str]) -> bool:
    """Whether `path` is an output, is inside one, or contains one."""
    return any(
        path == output or path.startswith(f"{output}/") or output.startswith(f"{path}/") for output in written
    )


def _libraries(workspace: Path, python: str) -> list[str]:
    """Whether what is installed is what results are recorded with; each stage would refuse by itself."""
    try:
        accepted = require_locked(workspace, python)
    except StackError as error:
        return [str(error)]
    if accepted:
        logger.warning("other libraries than those of requirements/ are accepted: %s", accepted)
    return []


def _servers(environment: Environment) -> list[str]:
    """Whether the servers are those of the clone, and all of them are named."""
    fault = server_fault(environment) or remote_without_keys(environment)
    return [] if fault is None else [fault]


def _store(environment: Environment) -> list[str]:
    """Why the store can't be used; asks with our key, so that a wrong one is noticed before hours of work."""
    if not environment.has_storage:
        return []
    from erv.storage.store import open_store

    try:
        open_store(environment, patient=False).versioned(environment.dvc_bucket)
    except StorageError as error:
        return [str(error)]
    return []


def _unreachable(environment: Environment) -> list[str]:
    servers = {
        "MLflow": environment.mlflow_uri and f"{environment.mlflow_uri.rstrip('/')}/health",
        "Prefect": environment.prefect_api_url and f"{environment.prefect_api_url.rstrip('/')}/health",
    }
    here = environment.workspace
    return [fault for name, url in servers.items() if url and (fault := unreachable(name, url, here))]


def _disk(workspace: Path) -> list[str]:
    free = shutil.disk_usage(workspace).free
    if free >= NEEDED_BYTES:
        return []
    return [
        f"only {free // 1_000_000} MB are free on the disk of {workspace}, "
        f"{NEEDED_BYTES // 1_000_000} MB are needed; make room"
    ]
