"""The MLflow runs that results came from: which stage ran when, where and with what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from erv.environment import Environment
from erv.results.result import UNKNOWN
from erv.tracking.description import EXPERIMENT, FLOW, KIND_TAG
from erv.tracking.experiments import BASELINE_TAG, NAME_TAG
from erv.tracking.lock_entries import ENTRY_TAG, PARENT_TAG, entry_hash, search
from erv.tracking.origin import COMMIT_TAG, DIRTY_TAG, STARTED_BY_TAG
from erv.tracking.ran import DEVICE, HARDWARE, LIBRARIES, PARAMETERS, PRECISION, SOUND, TRAINED
from erv.tracking.rest import Run

EVALUATION = "evaluation"  # `erv.kind` of a run of `erv evaluate`
PUBLICATION = "publish"
_MOST = 1_000_000  # runs of a kind; more than that would not fit in memory
_STAGES = ("evaluate", "report", "sft", "grpo")
_ACCELERATE, _PROCESSES = "machine.accelerate", "machine.processes"


class Runs:
    """The runs of our experiment.

    Attributes:
        whole: those of flows, experiments, publications and evaluations, newest first.

    Args:
        environment: where MLflow is; without one, there are none.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """

    def __init__(self, environment: Environment) -> None:
        self.whole: list[Run] = []
        self._by_id: dict[str, Run] = {}
        self._by_entry: dict[str, Run] = {}
        self._by_parent: dict[tuple[str, str], Run] = {}
        if environment.mlflow_uri is None:
            return
        for kind in (FLOW, EXPERIMENT, PUBLICATION, EVALUATION):
            self.whole += search(
                environment, f"tags.`{KIND_TAG}` = '{kind}' and attributes.status = 'FINISHED'", limit=_MOST
            )
        self.whole.sort(key=lambda run: (-run.info.start_time, run.info.run_id))
        for stage in _STAGES:
            finished = f"tags.`erv.stage` = '{stage}' and attributes.status = 'FINISHED'"
            for run in reversed(search(environment, finished, limit=_MOST)):  # the newest one last
                self._by_id[run.info.run_id] = run
                if entry := run.data.tags.get(ENTRY_TAG):
                    self._by_entry[entry] = run
                if parent := run.data.tags.get(PARENT_TAG):
                    self._by_parent[parent, run.info.run_name] = run

    def of(self, stage: str, entry: Mapping[str, Any], whole: Iterable[str] = ()) -> Run | None:
        """The run that made a lock entry.

        Args:
            stage: `evaluate@erv`.
            entry: the lock entry.
            whole: runs of experiments that have this entry, whose stages are linked to them alone.
        """
        found = self._by_entry.get(entry_hash(entry))
        return found or next((run for parent in whole if (run := self._by_parent.get((parent, stage)))), None)

    def stage(self, run_id: str) -> Run | None:
        """The finished run of a stage, by its id."""
        return self._by_id.get(run_id)

    def below(self, whole: str, stage: str) -> Run | None:
        """The run of a stage in that of a flow or experiment."""
        return self._by_parent.get((whole, stage))

    def evaluating(self, whole: str) -> Run | None:
        """The run of the only stage in that of `erv evaluate`, which is named by the model."""
        return next((run for (parent, _), run in self._by_parent.items() if parent == whole), None)

    def of_experiment(self, experiment: tuple[str, str] | None) -> list[str]:
        """The runs of an experiment of DVC, by its baseline and its name."""
        if experiment is None:
            return []
        return [run.info.run_id for run in self.whole if experiment_of(run) == experiment]


def experiment_of(run: Run) -> tuple[str | None, str | None]:
    """Baseline and name of the experiment of DVC that a run stands for."""
    return run.data.tags.get(BASELINE_TAG), run.data.tags.get(NAME_TAG)


def asked_of(setting: Mapping[str, str]) -> str:
    """The precision and device that the parameters of a setting ask for."""
    return f"{setting.get('runtime.dtype', UNKNOWN)} on {setting.get('runtime.device', UNKNOWN)}"


def ran_with(evaluated: Run | None, trained: Run | None, asked: str) -> dict[str, str]:
    """What runs say of how they ran, by the keys of `erv.results.items`; what they don't say is unknown.

    Args:
        evaluated: the run of the evaluation.
        trained: the run of the stage that trained the policy.
        asked: device and precision that the parameters asked for.
    """
    tags = evaluated.data.tags if evaluated is not None else {}
    found = {
        "precision": _precision(tags) or f"{UNKNOWN} (asked for: {asked})",
        "hardware": tags.get(HARDWARE, UNKNOWN),
        "libraries": tags.get(LIBRARIES, UNKNOWN),
        "sound.features": tags.get(SOUND, UNKNOWN),
        "model.parameters": _number(tags.get(PARAMETERS)),
    }
    mine = trained.data.tags if trained is not None else {}
    found["training.precision"] = _precision(mine) or UNKNOWN
    found["training.hardware"] = mine.get(HARDWARE, UNKNOWN)
    found["model.trained"] = _number(mine.get(TRAINED))
    found["processes"] = _processes(trained)
    return found


def record_of(evaluated: Run | None) -> dict[str, str]:
    """Where and when an evaluation ran, by the keys of `RECORD_TITLES`."""
    if evaluated is None:
        return dict.fromkeys(("date", "commit", "uncommitted changes", "started by", "MLflow run"), UNKNOWN)
    tags = evaluated.data.tags
    started = datetime.fromtimestamp(evaluated.info.start_time / 1000, UTC)
    return {
        "date": f"{started:%Y-%m-%d %H:%M} UTC",
        "commit": tags.get(COMMIT_TAG, UNKNOWN),
        "uncommitted changes": {"true": "yes", "false": "no"}.get(tags.get(DIRTY_TAG, ""), UNKNOWN),
        "started by": tags.get(STARTED_BY_TAG, UNKNOWN),
        "MLflow run": evaluated.info.run_id,
    }


def _precision(tags: Mapping[str, str]) -> str | None:
    if PRECISION not in tags or DEVICE not in tags:
        return None
    return f"{tags[PRECISION]} on {tags[DEVICE]}"


def _processes(run: Run | None) -> str:
    params = run.data.params if run is not None else {}
    if _PROCESSES not in params:
        return UNKNOWN
    how = params.get(_ACCELERATE, "None")
    return "1" if how in ("None", "") else f"{params[_PROCESSES]} under {how}"


def _number(text: str | None) -> str:
    return f"{int(text):,}" if text is not None and text.isdecimal() else UNKNOWN
