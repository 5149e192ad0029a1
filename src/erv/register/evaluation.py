"""Evaluates any model on the present test sets, as the candidate is: a version, or a folder with a policy.

It is no stage: nothing of it is in `dvc.lock`, and no gate is decided. Its figures, with their intervals, are
an MLflow run of their own. A killed evaluation goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from erv import pipeline
from erv.environment import Environment, child_environment
from erv.errors import RegistryError
from erv.files import sha256_of
from erv.model_folders import check_folder
from erv.pipeline import PipelineStage, StageCancelledError
from erv.pipeline.run import LOCK_FILE
from erv.policies.common.arm import stated_arm
from erv.policies.common.families import check_family
from erv.register.decoding import fault_of, serving_settings
from erv.register.evaluate_stage import METRICS, PREDICTIONS, names_its_policy, run_for
from erv.register.fetched import FetchedVersion
from erv.settings import Settings
from erv.tracking.description import KIND_TAG
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER, pipeline_files
from erv.tracking.opening import FLOW_VARIABLES, PARENT_VARIABLE, flow_run_id, open_run
from erv.tracking.run import StageRun

logger = logging.getLogger(__name__)

EVALUATION = "evaluation"  # what `erv.kind` says of its run
MODEL_TAG, DIGEST_TAG = "erv.evaluated", "erv.evaluated_digest"
_SERVING = "serving.json"
_NOTHING_SAYS = (
    "nothing says how clips were decoded for it; it sees them as `extract` in params.yaml has them"
)


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated.

    Attributes:
        title: its name for people.
        policy: the folder of its policy.
        digest: SHA-256 that stands for its content.
        serving: how clips are decoded for it, the content of its `serving.json`; None if nothing says so.
    """

    title: str
    policy: Path
    digest: str
    serving: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """Its name where a stage has that of its policy; no policy of a comparison is called so."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[-40:]
        return f"any-{plain}-{self.digest[:8]}"


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        subject: the model.
        comparison: of this one policy, from `erv.evaluate.compare.compare`.
        run_id: of its MLflow run; None where nothing is tracked.
    """

    subject: Subject
    comparison: Mapping[str, Any]
    run_id: str | None

    def lines(self) -> list[str]:
        """The figures for a terminal: all clips together, and each data set if there are several."""
        from erv.evaluate.compare import format_table, metrics_table, table_notes

        scopes = list(self.comparison["clips"])
        chosen = scopes if len(scopes) > 2 else scopes[:1]  # of one data set, `overall` is the same
        rows = [{"scope": scope, **row} for scope in chosen for row in metrics_table(self.comparison, scope)]
        percent = round(100 * float(self.comparison["confidence"]))
        told = [format_table(rows), f"in percent, with {percent}% intervals", *table_notes(self.comparison)]
        return [*told, f"MLflow run {self.run_id}"] if self.run_id else told


def is_model_folder(path: Path) -> bool:
    """Whether a folder looks like a model: a policy, or a bundle such as `models/candidate`."""
    return any((path / name).exists() for name in ("config.json", _SERVING, "policy"))


def subject_of_version(version: FetchedVersion) -> Subject:
    """A version that was fetched."""
    serving = json.loads((version.bundle / _SERVING).read_text(encoding="utf-8"))
    return Subject(version.title, version.bundle / "policy", version.bundle_hash, serving)


def subject_of_folder(folder: Path) -> Subject:
    """A folder: what `erv export` wrote, a bundle, or any policy in the Hub's format. Nothing in it is run.

    Raises:
        RegistryError: its weights are elsewhere, or its `serving.json` isn't what an export has.
        DataError: its `arm.json` is damaged.
    """
    folder = folder.resolve()
    policy = folder / "policy" if (folder / "policy").is_dir() else folder
    if stated_arm(policy).folder is not None:  # its digest would say nothing of the weights
        raise RegistryError(
            f"{policy}: is an arm, whose weights are elsewhere; name the folder with the weights"
        )
    path, serving = folder / _SERVING, None
    if path.is_file():
        try:
            serving = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise RegistryError(f"{path}: can't be read ({error}); export the version again") from None
        if fault := fault_of(serving):
            raise RegistryError(f"{path}: {fault}, so this erv did not write it; export the version again")
    return Subject(folder.name, policy, sha256_of(policy), serving)


def evaluate(
    subject: Subject,
    environment: Environment,
    settings: Settings,
    *,
    by: str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = logger.info,
) -> Evaluation:
    """Has a model answer the clips of the present test sets, and measures it as the candidate is measured.

    Args:
        subject: the model.
        environment: where it works and tracks.
        settings: of the workspace.
        by: who asked for it; who runs this process by default.
        cancelled: asked while it answers.
        say: takes what goes on, line by line.

    Raises:
        RegistryError: it sees clips that are decoded otherwise than those here, or its evaluation failed.
        DataError: loading it would run code of the folder.
        TrainingError: it holds no policy, or one of another family.
        PipelineError: another pipeline runs here, or what the evaluation reads isn't up to date.
        StageCancelledError: `cancelled` returned True.
    """
    check_folder(subject.policy)
    check_family(subject.policy, settings.policy.family)
    _check_decoding(subject, settings, say)
    with pipeline.one_pipeline_at_a_time(environment.workspace / LOCK_FILE):
        stage = _stage(environment, settings, cancelled, say)
        with (
            _own_run(environment, subject, by) as run,
            tempfile.TemporaryDirectory(prefix="evaluation-", dir=environment.state) as scratch,
        ):
            folder = Path(scratch) / "results"
            runs = {PARENT_VARIABLE: run.run_id, FLOW_VARIABLES[0]: flow_run_id()}
            reason = run_for(
                stage.command, subject.name, subject.policy, folder, environment, runs, cancelled, say
            )
            if reason is not None:
                raise RegistryError(f"{subject.title} can't be evaluated: {reason}")
            comparison = _measured(subject, folder, settings)
            run.log_metrics(_figures(comparison, subject))
            for name in (PREDICTIONS, METRICS):
                run.log_artifact(folder / name)
            run.log_text(json.dumps(comparison, indent=2, ensure_ascii=False), "figures.json")
            for file in pipeline_files():  # they say how the clips were made that it was tested on
                run.log_artifact(file, LOCK_ARTIFACT_FOLDER)
            return Evaluation(subject, comparison, run.run_id)


def _check_decoding(subject: Subject, settings: Settings, say: Callable[[str], None]) -> None:
    """Refuses a model that answers about clips decoded otherwise: its figures would say nothing of it."""
    from erv.media.decode import DecodeRule

    if subject.serving is None:
        say(f"{subject.title}: {_NOTHING_SAYS}")
        return
    here = serving_settings(settings)
    # Older versions don't say all; what they don't say has a default.
    known = {rule.name: rule.default for rule in fields(DecodeRule)}
    for name, default in known.items():
        theirs, ours = subject.serving.get(name, default), here.get(name, default)
        if theirs != ours:
            raise RegistryError(
                f"{subject.title} sees clips with {name} {theirs}, but those here are extracted with"
                f" extract.{name}: {ours}; set that to {theirs} in params.yaml and run `erv run extract`, or"
                " evaluate it in a clone that has it so"
            )


def _stage(
    environment: Environment,
    settings: Settings,
    cancelled: Callable[[], bool],
    say: Callable[[str], None],
) -> PipelineStage:
    """The stage whose command evaluates the candidate; all that it reads but the policy is up to date.

    Raises:
        PipelineError: `dvc.yaml` has no such stage, or what it reads is missing or out of date.
    """
    everything = pipeline.read_stages(environment.workspace)
    stage = pipeline.one_stage(everything, f"evaluate@{settings.register_.policy}")
    if not names_its_policy(stage.command):
        raise pipeline.PipelineError(f"dvc.yaml: {stage.name} doesn't name its policy; restore it from git")
    words = shlex.split(stage.command)
    policy = words[words.index("--policy") + 1]
    makers = {other.name for other in everything if policy in other.outputs}
    without = replace(
        stage,
        upstream=tuple(name for name in stage.upstream if name not in makers),
        dependencies=tuple(path for path in stage.dependencies if path != policy),
    )
    needed = pipeline.select(everything, without.upstream)
    say("asking DVC whether the test sets and the verifier are up to date")
    unchanged = pipeline.ask_unchanged(
        needed,
        cancelled=cancelled,
        environment=child_environment(environment),
        workspace=environment.workspace,
    )
    pipeline.check_inputs(without, [*needed, without], unchanged, environment.workspace)
    return stage


@contextmanager
def _own_run(environment: Environment, subject: Subject, by: str | None) -> Iterator[StageRun]:
    """The MLflow run of the evaluation; that of the stage's command lies below it."""
    from erv.tracking.origin import STARTED_BY_TAG

    tags = {
        KIND_TAG: EVALUATION,
        MODEL_TAG: subject.title,
        DIGEST_TAG: subject.digest,
        **({STARTED_BY_TAG: by} if by else {}),
    }
    run = open_run(environment, EVALUATION, EVALUATION, tags, name=f"evaluate {subject.title}")
    try:
        yield run
    except Exception as error:
        run.close("KILLED" if isinstance(error, StageCancelledError) else "FAILED", str(error))
        raise
    except BaseException:  # SIGTERM or Ctrl-C
        run.close("KILLED")
        raise
    run.close("FINISHED")


def _measured(subject: Subject, folder: Path, settings: Settings) -> dict[str, Any]:
    from erv.evaluate.by_judge import worth_of_judges
    from erv.evaluate.compare import compare
    from erv.evaluate.evaluate import read_predictions

    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return compare(
        {subject.title: read_predictions(folder / PREDICTIONS)},
        samples=settings.report.bootstrap_samples,
        confidence=settings.report.confidence,
        seed=settings.seed,
        worth=worth_of_judges({subject.title: metrics}),
        unexplained=() if metrics.get("explains", True) else (subject.title,),
    )


def _figures(comparison: Mapping[str, Any], subject: Subject) -> dict[str, float]:
    """`overall/EPC`, `overall/EPC/low` and the like."""
    found = {}
    for scope, metrics in comparison["policies"][subject.title].items():
        for metric, item in metrics.items():
            for key, name in (("value", ""), ("low", "/low"), ("high", "/high")):
                if item.get(key) is not None:
                    found[f"{scope}/{metric}{name}"] = float(item[key])
    return found
