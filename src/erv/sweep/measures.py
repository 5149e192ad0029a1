"""By what the trials of a sweep are compared: a series of one stage on validation clips, never test clips."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import SettingsError
from erv.pipeline import PipelineStage, TargetError, one_stage, select
from erv.settings import Settings
from erv.sweep.graph import Graph
from erv.sweep.options import DIRECTIONS, Direction, Metric


@dataclass(frozen=True)
class Measure:
    """A series that a stage reports while it learns.

    Attributes:
        metric: its name for people, of `erv.sweep.options.METRICS`.
        series: its name in MLflow.
        direction: whether less or more is better.
        curve: its name in the curves that the stage writes, which has the steps of every attempt; None if
            only MLflow has it.
        best: whether the stage keeps its best step rather than its last.
        inputs: of what the stage reads, the files and folders that decide what is measured on or by: whatever
            the stages that make them depend on must not vary.
        fixed: parameters and sections that the stage itself reads and that must not vary either.
    """

    metric: Metric
    series: str
    direction: Direction
    curve: str | None = None
    best: bool = False
    inputs: tuple[str, ...] = ("data",)
    fixed: tuple[str, ...] = ("seed", "roles")

    def value(self, points: Mapping[int, float]) -> float | None:
        """What a finished stage is worth, of its values by step, finite or not; None without any."""
        if not points:
            return None
        if not self.best:
            return points[max(points)]
        # A step whose value is no number is never the best that a stage has seen.
        usable = [value for value in points.values() if math.isfinite(value)] or [math.nan]
        return (min if self.direction == "minimize" else max)(usable)


_FIXED = ("seed", "roles")
_REWARD = ("variants", "train_erv", "grpo.shaping", "grpo.semantics", "grpo.credit")
# By step, the usual one first.
MEASURES: dict[str, tuple[Measure, ...]] = {
    "grpo": (
        Measure("accuracy", "validation/accuracy", "maximize", fixed=(*_FIXED, "grpo.semantics")),
        Measure(
            "reward",
            "validation/reward",
            "maximize",
            inputs=("data", "models/verifier"),
            fixed=(*_FIXED, *_REWARD),
        ),
    ),
    "sft": (Measure("loss", "validation_loss", "minimize", curve="validation_loss"),),
    "train_erv": (
        Measure(
            "loss",
            "train/validation_loss",
            "minimize",
            curve="validation_loss",
            best=True,
            fixed=(*_FIXED, "train_erv.class_weights", "train_erv.max_length"),
        ),
    ),
}


def choose(stages: Sequence[PipelineStage], stage: str, metric: str, direction: str) -> tuple[str, Measure]:
    """The stage that decides, and by which of its series.

    Args:
        stages: all of `dvc.yaml`.
        stage: as a user names it, `grpo@erv`.
        metric: of `erv.sweep.options.METRICS`; the usual one of the stage if empty.
        direction: `minimize` or `maximize`; as the metric asks for if empty.

    Raises:
        TargetError: there is no such stage, or several.
        SettingsError: it measures nothing on validation clips, or not this.
    """
    found = one_stage(stages, stage)
    known = MEASURES.get(found.group, ())
    if not known:
        raise SettingsError(
            f"{found.name} measures nothing on validation clips, and a sweep must not look at test clips;"
            f" name a stage of {', '.join(MEASURES)}"
        )
    names: list[str] = [measure.metric for measure in known]
    if metric and metric not in names:
        raise SettingsError(f"{found.name} has no metric {metric!r}; expected {' or '.join(names)}")
    measure = known[names.index(metric)] if metric else known[0]
    if not direction:
        return found.name, measure
    wanted = next((one for one in DIRECTIONS if one == direction), None)
    if wanted is None:
        raise SettingsError(f"direction {direction!r}: expected {' or '.join(DIRECTIONS)}")
    return found.name, dataclasses.replace(measure, direction=wanted)


def check_comparable(measure: Measure, graph: Graph, stage: str, names: Sequence[str]) -> None:
    """Refuses parameters that decide what is measured on, or by what.

    Args:
        measure: by what trials are compared.
        graph: of the sweep.
        stage: the one that measures.
        names: of the parameters that vary.

    Raises:
        SettingsError: one does.
    """
    makers = graph.makers(stage, measure.inputs)
    for name in names:
        fixed = any(name == part or name.startswith(f"{part}.") for part in measure.fixed)
        if fixed or graph.uses(name, makers):
            other = " (grpo's accuracy may do)" if measure.metric == "reward" else ""
            raise SettingsError(
                f"{name} decides what {measure.metric} is measured on or by, so trials that differ in it"
                f" can't be compared by it{other}; leave it out, or set it for all trials with --set"
            )


def check_measured(settings: Settings, stage: str) -> None:
    """Refuses what reports no such series.

    Raises:
        SettingsError: the variant samples once and is then fine-tuned (`rft`).
    """
    group, _, variant = stage.partition("@")
    if group == "grpo" and settings.variants[variant].method == "rft":
        raise SettingsError(
            f"{stage} is of method rft, which measures nothing on validation clips while it learns"
        )
    if group == "sft" and settings.sft.max_steps == 0:
        raise SettingsError("sft.max_steps is 0, so sft learns nothing that a sweep could compare")


def varied_stages(
    stages: Sequence[PipelineStage], stage: str, own: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[str]]:
    """What the trials run, and what must be up to date before them.

    Args:
        stages: all of `dvc.yaml`.
        stage: the one that decides.
        own: by varied parameter, the stages or groups that depend on it.

    Returns:
        The stages that each trial runs, and those that it needs besides.

    Raises:
        SettingsError: a parameter that no such stage depends on, so that it would make no difference.
    """
    needed = select(stages, [stage])
    varied: set[str] = set()
    for name, users in own.items():
        mine = {item.name for item in needed if item.name in users or item.group in users}
        if not mine:
            raise SettingsError(
                f"{name} makes no difference to {stage}: nothing that it needs depends on it; `erv params"
                f" reruns {name}` says what does"
            )
        varied |= mine
    for item in needed:  # each after all that it depends on
        if varied.intersection(item.upstream):
            varied.add(item.name)
    return (
        [item.name for item in needed if item.name in varied],
        [item.name for item in needed if item.name not in varied],
    )


def read_curve(path: Path, series: str) -> dict[int, float]:
    """The values of a series by step, from the curves that a stage wrote; empty if it has none."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        return {
            int(row["step"]): float(row["value"]) for row in csv.DictReader(stream) if row["series"] == series
        }


def curve_of(stages: Sequence[PipelineStage], stage: str) -> Path | None:
    """The table of curves that a stage writes."""
    (found,) = [item for item in stages if item.name == stage]
    return next((Path(output) for output in found.outputs if output.endswith(".csv")), None)


def candidate_stage(stages: Sequence[PipelineStage], policy: str) -> PipelineStage:
    """The stage that makes the policy of `register.policy`.

    Raises:
        TargetError: none does.
    """
    output = f"models/policy/{policy}"
    for stage in stages:
        if output in stage.outputs:
            return stage
    raise TargetError(f"register.policy is {policy!r}, which no stage of dvc.yaml makes")
