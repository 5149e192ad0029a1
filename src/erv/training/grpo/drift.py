"""What earns rewards while GRPO runs, and whether that drifts.

When a policy games its reward, its completions show it before the reward does. Explanations repeat
themselves, get much shorter or longer, name every emotion at once, or vanish; or one emotion is no longer
explained while the mean still rises. `shape` measures this for each generation. `DriftAlarm` compares the
last steps with the first ones and reports what moved beyond its bound and beyond noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import fmean, variance
from typing import Any

import torch

from erv.errors import DataError
from erv.labels import LabelSpace
from erv.prompts import Completion, completion_text, tagged
from erv.rewards.answers import bare, mafw_name, normalize
from erv.rewards.explanation import Shaping
from erv.sentences import explanation_shape, split_sentences
from erv.training.grpo.generation import Generation
from erv.verifier.protocol import Verifier, unreadable_by

WINDOW = 10  # steps: this many first steps are the beginning, this many last steps are compared with it
BEYOND_NOISE = 3.0  # standard errors: with few clips of an emotion per step its mean reward jumps
BY_CLASS = "reward_by_class/"


@dataclass(frozen=True)
class Bound:
    """The limit beyond which a metric has drifted.

    Attributes:
        metric: name of the metric.
        says: what a drift of this metric means.
        above: drifted if the value is above the beginning by more than this.
        below: drifted if the value is below the beginning by more than this.
        times: drifted if the value is more than this many times the beginning, or less than the beginning
            divided by this.
    """

    metric: str
    says: str
    above: float | None = None
    below: float | None = None
    times: float | None = None

    def drifted(self, beginning: float, now: float) -> bool:
        """Whether `now` is too far from `beginning`."""
        if self.above is not None and now > beginning + self.above:
            return True
        if self.below is not None and now < beginning - self.below:
            return True
        return self.times is not None and not beginning / self.times <= now <= beginning * self.times


BOUNDS = (
    Bound("explanations/repeated", "explanations repeat their own sentences", above=0.1),
    Bound("explanations/words", "explanations change their length", times=1.6),
    Bound("explanations/sentences", "explanations change their number of sentences", times=1.6),
    Bound("explanations/listing", "sentences list emotions", above=0.05),
    Bound("explanations/unreadable", "the verifier can't read sentences", above=0.05),
    Bound("explanations/missing", "completions have no explanation", above=0.1),
    Bound("answers/listing", "answers name several emotions", above=0.05),
)
CLASS_BOUND = Bound(BY_CLASS, "the reward of one emotion falls", below=0.2)


def measure(
    completions: Sequence[Completion],
    *,
    max_named: int | None = Shaping().max_named,
    verifier: Verifier | None = None,
) -> dict[str, float]:
    """The shape of a batch of completions.

    Args:
        completions: n completions.
        max_named: how many emotions a sentence may name before it counts as a listing; None for two.
        verifier: says which sentences it can't read.

    Returns:
        explanations/sentences, explanations/words (means per completion), explanations/repeated (share of
        sentences that repeat an earlier one of their explanation), explanations/listing (share of sentences
        that list emotions), explanations/unreadable (share of sentences outside what the verifier can read;
        only with a verifier that says so), explanations/missing (share of completions without an
        explanation), answers/listing (share of completions whose answers name more than one emotion).
    """
    space = LabelSpace.load("mafw")
    limit = 2 if max_named is None else max_named
    texts = [completion_text(completion) for completion in completions]
    explanations = [" ".join(tagged(text, "think")) for text in texts]
    sentences = [item for text in explanations for item in split_sentences(text, semantics="strict")]
    shape = explanation_shape(texts)
    unread = {}
    if hasattr(verifier, "unreadable"):
        unread["explanations/unreadable"] = _share(unreadable_by(verifier, sentences))
    answers = [space.named_in(" ".join(tagged(text, "answer"))) for text in texts]
    return {
        **{f"explanations/{name}": shape[name] for name in ("sentences", "words", "repeated")},
        "explanations/listing": _share(len(space.named_in(text)) > limit for text in sentences),
        **unread,
        "explanations/missing": _share(not text.strip() for text in explanations),
        "answers/listing": _share(len(names) > 1 for names in answers),
    }


def reward_by_class(
    name: str, values: Sequence[float | None], solution: Sequence[str], dataset: Sequence[str | None]
) -> dict[str, float]:
    """The mean of a reward by true emotion, without completions that could not be scored.

    Emotions have their MAFW names, or those of their own space if MAFW has none for them.
    """
    found: dict[str, list[float]] = {}
    for value, truth, space in zip(values, solution, dataset, strict=True):
        label = emotion(truth, space)
        if value is not None and label is not None:
            found.setdefault(label, []).append(value)
    return {f"{BY_CLASS}{name}/{label}": fmean(numbers) for label, numbers in sorted(found.items())}


def shape(
    generation: Generation,
    *,
    max_named: int | None = Shaping().max_named,
    verifier: Verifier | None = None,
) -> dict[str, float]:
    """The watched metrics of a generation: `measure` of its completions, `reward_by_class` of each reward.

    With several processes, the shares of each are measured separately and then averaged in float32.
    """
    found: dict[str, list[float]] = {}
    for own in generation.shares:
        measured = measure(generation.completions[own], max_named=max_named, verifier=verifier)
        if "solution" in generation.columns:
            truths = generation.columns["solution"][own]
            datasets = generation.columns.get("dataset", [None] * len(generation.completions))[own]
            for name, values in generation.rewards.items():
                measured |= reward_by_class(name, values[own], truths, datasets)
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
    return {
        name: torch.tensor(values, dtype=torch.float32).sum().item() / len(values)
        for name, values in sorted(found.items())
    }


@dataclass
class DriftAlarm:
    """Compares the last steps with the first ones, metric by metric; reports each drift once.

    Attributes:
        beginning: the first `WINDOW` values of each metric.
        latest: the last `WINDOW` values of each metric.
        raised: metrics that have drifted and not come back.
        warnings: number of drifts reported.
    """

    beginning: dict[str, list[float]] = field(default_factory=dict)
    latest: dict[str, list[float]] = field(default_factory=dict)
    raised: set[str] = field(default_factory=set)
    warnings: int = 0

    def update(self, metrics: Mapping[str, float]) -> list[str]:
        """Takes the metrics of a step; returns a sentence for each new drift."""
        said = []
        for metric, value in metrics.items():
            bound = _bound(metric)
            if bound is None:
                continue
            first = self.beginning.setdefault(metric, [])
            if len(first) < WINDOW:
                first.append(value)
                continue
            latest = self.latest.setdefault(metric, [])
            latest.append(value)
            del latest[:-WINDOW]
            before, now = fmean(first), fmean(latest)
            if not bound.drifted(before, now) or abs(now - before) <= BEYOND_NOISE * _error(first, latest):
                self.raised.discard(metric)
            elif len(latest) == WINDOW and metric not in self.raised:
                self.raised.add(metric)
                self.warnings += 1
                said.append(
                    f"{bound.says}: {metric} was {before:.2f} at first, {now:.2f} in the last {WINDOW} steps"
                )
        return said

    def state(self) -> dict[str, Any]:
        """The alarm's state, for a checkpoint."""
        return {
            "beginning": self.beginning,
            "latest": self.latest,
            "raised": sorted(self.raised),
            "warnings": self.warnings,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned; an empty mapping starts from scratch."""
        self.beginning, self.latest = state.get("beginning", {}), state.get("latest", {})
        self.raised, self.warnings = set(state.get("raised", ())), int(state.get("warnings", 0))


def emotion(truth: str, space: str | None) -> str | None:
    """The true emotion under one name for all data sets: MAFW's, or its own space's if MAFW has none.

    Args:
        truth: the label, with or without `<answer>` around it.
        space: its data set; None if unknown.
    """
    try:
        name = mafw_name(bare(truth), space)
    except DataError:  # a custom label space needs no map to train with format and accuracy
        name = None
    return name or normalize(bare(truth), space or "mafw")


def _error(first: Sequence[float], latest: Sequence[float]) -> float:
    """Standard error of the difference of two means."""
    return sqrt(sum(variance(values) / len(values) for values in (first, latest) if len(values) > 1))


def _bound(metric: str) -> Bound | None:
    if metric.startswith(BY_CLASS):
        return CLASS_BOUND
    return next((bound for bound in BOUNDS if bound.metric == metric), None)


def _share(flags: Any) -> float:
    values = list(flags)
    return sum(values) / len(values) if values else 0.0
