"""The conditions a candidate must meet to become champion, and the verdict on each.

A minimum applies to the lower end of the interval, a maximum to the upper one, which must reach it. A gate
with `against` applies to that end of the paired difference, which must be beyond it: two policies that answer
alike are no evidence that one is better.

A gate on what judges read may name one, or hold for every judge that has shown its worth. A judge that hasn't
counts in no gate: neither by name, nor as the headline judge, nor with its vote in a majority.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from erv.errors import EvaluationError, RegistryError
from erv.settings import GateSettings
from erv.settings.register import EVERY, JUDGED

CHAMPION = "champion"
SCOPE = "overall"


@dataclass(frozen=True)
class Verdict:
    """One gate and how it was decided.

    Attributes:
        metric: what is measured, over all clips.
        against: the policy it is compared with, `champion`, or None for the metric itself.
        minimum: what the lower end must reach, or exceed where there is an `against`; None with a maximum.
        value: the end of the interval that decides; None while undecided or where nothing could be measured.
        passed: None while undecided (a gate against the champion is decided when publishing).
        reason: why it could not be measured, if it couldn't.
        maximum: what the upper end must not exceed, or stay below where there is an `against`.
        judge: whose reading counts: a judge, `majority`, `every` for all worthy judges (then `value` is that
            of the least favourable one), or None for the headline judge.
    """

    metric: str
    against: str | None
    minimum: float | None
    value: float | None = None
    passed: bool | None = None
    reason: str = ""
    maximum: float | None = None
    judge: str | None = None

    @property
    def end(self) -> str:
        """Which end of the interval decides: `low` or `high`."""
        return "low" if self.maximum is None else "high"

    @property
    def is_judged(self) -> bool:
        """Whether the reading of a judge decides the metric."""
        return self.metric in JUDGED

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without `maximum` and `judge` where there is none."""
        optional = {"maximum", "judge"}
        return {key: value for key, value in asdict(self).items() if key not in optional or value is not None}

    def text(self) -> str:
        """`EPC minus r1_omni (judge embedding): lower end +0.1200, needs more than +0.0000`."""
        what = self.metric if self.against is None else f"{self.metric} minus {self.against}"
        if self.judge is not None:
            what += " (every worthy judge)" if self.judge == EVERY else f" (judge {self.judge})"
        sign = "" if self.against is None else "+"
        bound = self.minimum if self.maximum is None else self.maximum
        least = f"{bound:{sign}.4f}"
        if self.maximum is None:
            side, needs = "lower", f"{least} or more" if self.against is None else f"more than {least}"
        else:
            side, needs = "upper", f"{least} or less" if self.against is None else f"less than {least}"
        if self.value is None:
            return f"{what}: {self.reason or 'not decided'}, needs {needs}"
        return f"{what}: {side} end {self.value:{sign}.4f}, needs {needs}"


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
        EvaluationError: the comparison lacks a policy or a judge that a gate names.
    """
    if policy not in comparison.get("policies", {}):
        known = ", ".join(comparison.get("policies", {})) or "none"
        raise RegistryError(f"register.policy is {policy!r}, but the comparison has only: {known}")
    opened = [
        Verdict(gate.metric, gate.against, gate.minimum, maximum=gate.maximum, judge=gate.judge)
        for gate in gates
    ]
    return tuple(
        verdict if verdict.against == CHAMPION else _decide(verdict, policy, comparison) for verdict in opened
    )


def _decide(verdict: Verdict, policy: str, comparison: Mapping[str, Any]) -> Verdict:
    from erv.evaluate.compare import difference, in_reading, same_answers

    judges, fault = _judges(verdict, comparison)
    if verdict.against == policy:
        fault = "this is the candidate itself, so there is nothing to compare"
    elif verdict.against is not None and same_answers(comparison, policy, verdict.against):
        fault = "both gave the same completion for every clip, so there is nothing to compare"
    else:
        fault = _inapplicable(verdict, policy, comparison) or fault
    if fault:
        return replace(verdict, passed=False, reason=fault)
    decided = []
    for judge in judges:
        read = in_reading(comparison, judge)
        if verdict.against is None:
            interval = read["policies"][policy][SCOPE].get(verdict.metric) or {}
        else:
            interval = difference(read, policy, verdict.against, SCOPE, verdict.metric)
        decided.append(judged(verdict, interval))
    return _least_favourable(decided)


def _inapplicable(verdict: Verdict, policy: str, comparison: Mapping[str, Any]) -> str:
    """Why a metric means nothing for the policy or for what it is compared with; empty if it does."""
    from erv.evaluate.applicable import is_about_explanations

    for name in (policy, verdict.against):
        known = comparison["policies"].get(name, {}).get(SCOPE)
        if known is not None and verdict.metric not in known and is_about_explanations(verdict.metric):
            who = "the candidate" if name == policy else name if name != CHAMPION else "the champion"
            return f"doesn't apply, as {who} has no figure for it (it answers without explaining)"
    return ""


def _judges(verdict: Verdict, comparison: Mapping[str, Any]) -> tuple[list[str | None], str]:
    """Whose readings decide a gate, None for the headline judge; or why none does."""
    from erv.evaluate.by_judge import is_worthy, worthy_judges
    from erv.evaluate.judges.panel import MAJORITY

    if not verdict.is_judged:
        return [None], ""
    if verdict.judge == EVERY:
        worthy = worthy_judges(comparison)
        return list(worthy), "" if worthy else "no judge has shown its worth"
    known = comparison.get("judges", {})
    if verdict.judge == MAJORITY:
        doubted = [name for name, item in known.items() if name != MAJORITY and not is_worthy(item["worth"])]
        if doubted:
            return [], f"{', '.join(doubted)} may vote without having shown worth, so no majority decides"
        return [MAJORITY], ""
    # The headline judge is the first of the panel; what it reads is also in the comparison itself.
    named = verdict.judge if verdict.judge is not None else comparison.get("judge", {}).get("name")
    if verdict.judge not in (None, *known):
        return [verdict.judge], ""  # that it didn't read is said where its figures are looked up
    if not is_worthy(known.get(named, {}).get("worth")):
        who = "the headline judge" if named is None else f"the judge {named}"
        return [], f"{who} has not shown its worth, so it decides no gate"
    return [verdict.judge], ""


def _least_favourable(decided: Sequence[Verdict]) -> Verdict:
    """Of one gate in several readings: that which could not be measured, else the farthest from passing."""

    def favour(verdict: Verdict) -> float:
        if verdict.value is None:
            return float("-inf")
        return verdict.value if verdict.maximum is None else -verdict.value

    return min(decided, key=favour)


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
    from erv.evaluate.by_judge import worth_of_judges
    from erv.evaluate.compare import compare, measuring, panel_of

    if all(verdict.passed is not None for verdict in verdicts):
        return tuple(verdicts)
    by_judge = any(verdict.passed is None and verdict.judge is not None for verdict in verdicts)
    if candidate_metrics is not None or champion_metrics is not None:
        mine, other = measuring(candidate_metrics or {}), measuring(champion_metrics or {})
        if mine is None or mine != other:
            return _fail_open(verdicts, "the champion had a different judge or different decoding")
        if by_judge and panel_of(candidate_metrics or {}) != panel_of(champion_metrics or {}):
            return _fail_open(verdicts, "the champion was read by a different panel of judges")
    worth = worth_of_judges({"candidate": candidate_metrics or {}}) or {}
    try:
        comparison = compare(
            {CHAMPION: champion, "candidate": candidate},
            samples=samples,
            confidence=confidence,
            seed=seed,
            worth=worth if worth and by_judge else None,
            unexplained=[
                name
                for name, metrics in ((CHAMPION, champion_metrics), ("candidate", candidate_metrics))
                if not (metrics or {}).get("explains", True)
            ],
        )
    except EvaluationError:
        return _fail_open(verdicts, "the champion was not evaluated on the same clips")
    # A candidate that answers like the champion is judged by the interval.
    comparison |= {"same_answers": [], "judge": (candidate_metrics or {}).get("judge", {})}
    # Where the headline judge alone is asked, its worth is all that is needed of the panel.
    comparison.setdefault("judges", {name: {"worth": shown} for name, shown in worth.items()})
    return tuple(v if v.passed is not None else _decide(v, "candidate", comparison) for v in verdicts)


def _fail_open(verdicts: Sequence[Verdict], reason: str) -> tuple[Verdict, ...]:
    return tuple(v if v.passed is not None else replace(v, passed=False, reason=reason) for v in verdicts)


def judged(verdict: Verdict, interval: Mapping[str, float | None]) -> Verdict:
    """Decides a gate by an interval; a metric that is not defined (no clip counts) fails."""
    end = interval.get(verdict.end)
    if end is None or end != end:
        return replace(verdict, passed=False, reason="could not be measured")
    # Rounded, so that the last bit of a sum does not change a bundle's hash.
    value = round(float(end), 6)
    if verdict.maximum is not None:
        passed = value <= verdict.maximum if verdict.against is None else value < verdict.maximum
    else:
        minimum = float(verdict.minimum or 0.0)
        passed = value >= minimum if verdict.against is None else value > minimum
    return replace(verdict, value=value, passed=passed)
