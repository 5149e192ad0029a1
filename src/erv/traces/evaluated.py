"""Finds a finished evaluation: its predictions, what was asked, and the MLflow run that produced it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.environment import Environment
from erv.errors import EvaluationError, StackError
from erv.evaluate.evaluate import read_predictions
from erv.files import content_digest
from erv.labels import LabelSpace
from erv.manifest import read_manifests
from erv.pipeline import read_accepted
from erv.policies.common.policy import stored_prompt
from erv.prompts import Prompt
from erv.stack.reach import require
from erv.tracking import lock_entries

EVALUATIONS = Path("eval")
POLICIES = Path("models/policy")
MANIFESTS = Path("data/manifest")


@dataclass(frozen=True)
class Evaluated:
    """A policy's evaluation in this workspace.

    Attributes:
        policy: its name.
        rows: of its predictions.
        prompt: what it was asked.
        subtitles: what is said in a clip, by data set and clip id; empty if the prompt doesn't tell it.
    """

    policy: str
    rows: Sequence[Mapping[str, Any]]
    prompt: Prompt
    subtitles: Mapping[tuple[str, str], str | None]

    def asked(self, row: Mapping[str, Any]) -> str:
        """The user turn of a clip."""
        key = (row["dataset"], row["clip_id"])
        return self.prompt.ask(LabelSpace.load(row["dataset"]).names, self.subtitles.get(key))


@dataclass(frozen=True)
class FoundRun:
    """An MLflow run and the experiment that it is in."""

    run_id: str
    experiment_id: str

    def page(self, environment: Environment) -> str:
        """The address of its traces, for people."""
        server = environment.mask(environment.mlflow_uri or "").rstrip("/")
        return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}/traces"


def stage_of(policy: str) -> str:
    """The stage that evaluates a policy."""
    return f"evaluate@{policy}"


def read_evaluation(policy: str, entries: Mapping[str, Mapping[str, Any]]) -> Evaluated:
    """Reads what `evaluate` left of a policy.

    Args:
        policy: its name.
        entries: of `dvc.lock`.

    Raises:
        EvaluationError: it was not evaluated; its predictions are damaged, or not those in `dvc.lock`; or the
            policy, which says what was asked, is not here.
        DataError, TrainingError: the manifest or the policy's folder is damaged.
    """
    stage, path = stage_of(policy), EVALUATIONS / policy / "predictions.parquet"
    remedy = f"run `dvc repro {stage}`"
    if not path.is_file() or stage not in entries:
        what = f"{path} is missing" if not path.is_file() else f"dvc.lock has no entry of {stage}"
        raise EvaluationError(f"policy {policy!r} was not evaluated here: {what}; {remedy}")
    recorded = {out["path"]: out.get("md5") for out in entries[stage].get("outs") or []}
    if recorded.get(path.as_posix()) != content_digest(path):
        raise EvaluationError(f"{path}: not the predictions that dvc.lock describes; {remedy}")
    folder = POLICIES / policy
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: not found, and it says what was asked; run `dvc checkout {folder}`")
    rows, prompt = read_predictions(path), stored_prompt(folder)
    subtitles: dict[tuple[str, str], str | None] = {}
    if "subtitle" in prompt.fields:
        manifests = read_manifests(MANIFESTS, sorted({row["dataset"] for row in rows}))
        clips = (clip for rows_of_set in manifests.values() for clip in rows_of_set)
        subtitles = {(clip.dataset, clip.clip_id): clip.subtitle for clip in clips}
    return Evaluated(policy, rows, prompt, subtitles)


def find_runs(
    policies: Sequence[str], entries: Mapping[str, Mapping[str, Any]], environment: Environment
) -> list[FoundRun]:
    """The MLflow run of each policy's evaluation, the newest if there are several.

    Raises:
        StackError: no MLflow server is configured, or it can't be reached or refuses.
        EvaluationError: no run on it produced the evaluation in `dvc.lock`.
    """
    server = require("MLflow", environment.mlflow_uri, environment.workspace)
    stages, accepted = [stage_of(policy) for policy in policies], read_accepted()
    lock_entries.reconcile(environment, entries, stages)
    found = []
    for stage in stages:
        try:
            runs = lock_entries.find_runs(environment, entries[stage], accepted)
        except OSError as error:
            sentence = environment.mask(" ".join(str(error).split()))[:300]
            raise StackError(f"MLflow at {environment.mask(server)}: {sentence}") from error
        if not runs:
            raise EvaluationError(
                f"{stage}: no run in experiment {environment.mlflow_experiment!r} of MLflow at"
                f" {environment.mask(server)} produced the predictions in dvc.lock, as they came from DVC's"
                f" cache or from another server; run `dvc repro --force --single-item {stage}`"
            )
        found.append(FoundRun(runs[0].info.run_id, runs[0].info.experiment_id))
    return found
