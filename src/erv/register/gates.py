"""The conditions a candidate must meet to become champion, and the verdict on each.

A floor applies to the lower end of the interval, which must reach it. A gate with `against` applies to the
lower end of the paired difference, which must exceed it: two policies that answer alike are no evidence that
one is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from erv.errors import EvaluationError, RegistryError
from erv.settings import GateSettings

CHAMPION = "champion"
SCOPE = "overall"


@dataclass(frozen=True)
class Verdict:
    """One gate and how it was decided.

    Attributes:
        metric: WAR, UAR, EEA, EPC or FCR, over all clips.
        against: the policy it is compared with, `champion`, or None for a floor.
        minimum: what the lower end must reach, or exceed where there is an `against`.
        value: the lower end of the interval; None while undecided or where nothing could be measured.
        passed: None while undecided (a gate against the champion is decided when publishing).
        reason: why it could not be measured, if it couldn't.
    """

    metric: str
    against: str | None
    minimum: float
    value: float | None = None
    passed: bool | None = None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """`EPC minus r1_omni: lower end +0.1200, needs more than +0.0000`."""
        what = self.metric if self.against is None else f"{self.metric} minus {self.against}"
        sign = "" if self.against is None else "+"
        least = f"{self.minimum:{sign}.4f}"
        needs = f"needs {least} or more" if self.against is None else f"needs more than {least}"
        if self.value is None:
            return f"{what}: {self.reason or 'not decided'}, {needs}"
        return f"{what}: lower end {self.value:{sign}.4f}, {needs}"


def require_test_split(predictions: Sequence[Mapping[str, Any]]) -> None:
    """Raises RegistryError unless all predictions are of clips of the test split."""
    splits = sorted({str(row["split"]) for row in predictions})
    if splits != ["test"]:
        raise RegistryError(
            f"the predictions are of the split {', '.join(splits) or '(none)'}, but gates are decided on test"
            " only; set evaluate.split to test and run `dvc repro`"
        )


def decide(gates: Sequence[GateSettings], policy: str, comparison: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """The verdicts that need no champion, from the report's comparison; those that do stay undecided.

    Raises:
        RegistryError: the comparison lacks the policy.
    """
    if policy not in comparison.get("policies", {}):
        known = ", ".join(comparison.get("policies", {})) or "none"
        raise RegistryError(f"register.policy is {policy!r}, but the comparison has only: {known}")
    return tuple(_decide(gate, policy, comparison) for gate in gates)


def _decide(gate: GateSettings, policy: str, comparison: Mapping[str, Any]) -> Verdict:
    from erv.evaluate.compare import difference, same_answers

    if gate.against == CHAMPION:
        return Verdict(gate.metric, gate.against, gate.minimum)
    if gate.against is None:
        interval = comparison["policies"][policy][SCOPE].get(gate.metric) or {}
        return judged(gate.metric, None, gate.minimum, interval.get("low"))
    fault = ""
    if gate.against == policy:
        fault = "this is the candidate itself, so there is nothing to compare"
    elif same_answers(comparison, policy, gate.against):
        fault = "both gave the same completion for every clip, so there is nothing to compare"
    if fault:
        return Verdict(gate.metric, gate.against, gate.minimum, None, False, fault)
    interval = difference(comparison, policy, gate.against, SCOPE, gate.metric)
    return judged(gate.metric, gate.against, gate.minimum, interval.get("low"))


def decide_against_champion(
    verdicts: Sequence[Verdict],
    candidate: Sequence[Mapping[str, Any]],
    champion: Sequence[Mapping[str, Any]],
    *,
    samples: int,
    confidence: float,
    seed: int,
    candidate_metrics: Mapping[str, Any] | None = None,
    champion_metrics: Mapping[str, Any] | None = None,
) -> tuple[Verdict, ...]:
    """Decides what `decide` left open, from both models' own predictions on the same clips.

    Args:
        verdicts: from `decide`.
        candidate: rows of the candidate's predictions. A candidate that answers like the champion is judged
            by the interval: given enough clips it passes a gate that allows a loss, but no other.
        champion: rows of the champion's predictions; if they are of other clips, every open gate fails.
        samples: number of bootstrap draws.
        confidence: confidence level of the intervals.
        seed: seed of the draws.
        candidate_metrics: content of the candidate's `metrics.json`; None for both skips the check that judge
            and decoding are the same. If they differ, or one is not recorded, every open gate fails.
        champion_metrics: the same for the champion.
    """
    from erv.evaluate.compare import compare, difference, measuring

    if all(verdict.passed is not None for verdict in verdicts):
        return tuple(verdicts)
    if candidate_metrics is not None or champion_metrics is not None:
        mine, other = measuring(candidate_metrics or {}), measuring(champion_metrics or {})
        if mine is None or mine != other:
            return _fail_open(verdicts, "the champion had a different judge or different decoding")
    try:
        comparison = compare(
            {CHAMPION: champion, "candidate": candidate}, samples=samples, confidence=confidence, seed=seed
        )
    except EvaluationError:
        return _fail_open(verdicts, "the champion was not evaluated on the same clips")
    return tuple(
        v
        if v.passed is not None
        else judged(
            v.metric,
            v.against,
            v.minimum,
            difference(comparison, "candidate", CHAMPION, SCOPE, v.metric).get("low"),
        )
        for v in verdicts
    )


def _fail_open(verdicts: Sequence[Verdict], reason: str) -> tuple[Verdict, ...]:
    return tuple(
        v if v.passed is not None else Verdict(v.metric, v.against, v.minimum, None, False, reason)
        for v in verdicts
    )


def judged(metric: str, against: str | None, minimum: float, low: float | None) -> Verdict:
    """The verdict for a lower end; a metric that is not defined (no clip counts) fails."""
    if low is None or low != low:
        return Verdict(metric, against, minimum, None, False, "could not be measured")
    # Rounded, so that the last bit of a sum does not change a bundle's hash.
    low = round(float(low), 6)
    return Verdict(metric, against, minimum, low, low >= minimum if against is None else low > minimum)
