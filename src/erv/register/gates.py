"""The conditions a candidate must meet to become champion, and the verdict on each.

A minimum applies to the lower end of the interval, a maximum to the upper one, which must reach it. A gate
with `against` applies to that end of the paired difference, which must be beyond it: two policies that answer
alike are no evidence that one is better.

A gate on what judges read may name one, or hold for every judge that has shown its worth. A judge that hasn't
counts in no gate: neither by name, nor as the headline judge, nor with its vote in a majority.

A gate on what people prefer (`preference`) waits for the report of a study; `erv.register.people` decides it
when the candidate is published.

A gate is passed if the whole interval is on the right side of its bound, failed if all of it is on the wrong
side, and can't be told in between or where nothing could be measured. A champion passes all of them. The
intervals have settings of their own (`register.confidence`, `register.bootstrap_samples`), so that no change
of the report's moves a gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from erv.errors import EvaluationError, RegistryError
from erv.settings import GateSettings
from erv.settings.register import EVERY, INSTRUMENTS, JUDGED, PREFERENCE

CHAMPION = "champion"
SCOPE = "overall"
PASS: Final = "pass"  # noqa: S105
FAIL: Final = "fail"
CANT_TELL: Final = "can't tell"
OPEN: Final = "open"
Outcome = Literal["pass", "fail", "can't tell", "open"]
_WORST_FIRST: tuple[Outcome, ...] = (FAIL, CANT_TELL, OPEN, PASS)
NO_CHAMPION = "there was no champion to compare with"
NOT_PUBLISHED = "people's preferences are looked up when the candidate is published"
LINEAGE = "lineage"  # of a version: whether every link behind it holds
SERVING_CODE = "serving code"  # of a version: whether what answers is in a commit
WITHDRAWN = "withdrawn clips"  # of a version: whether it learned from one, or was tuned on it
_DIGITS, _MOST_DIGITS = 4, 9  # decimals of figures in a text
VERIFIER_F1, JUDGE_ACCURACY = INSTRUMENTS  # what measured, not what was measured


@dataclass(frozen=True)
class Verdict:
    """One gate and how it was decided.

    Attributes:
        metric: what is measured, over all clips.
        against: the policy it is compared with, `champion`, or None for the metric itself.
        minimum: what the lower end must reach, or exceed where there is an `against`; None with a maximum.
        low, high: the interval; None while undecided or where nothing could be measured.
        outcome: `pass`, `fail`, `can't tell`, or `open` while undecided (a gate against the champion is
            decided when publishing).
        reason: why it could not be measured, if it couldn't.
        maximum: what the upper end must not exceed, or stay below where there is an `against`.
        judge: whose reading counts: a judge, `majority`, `every` for all worthy judges (then the interval is
            that of the least favourable one), or None for the headline judge.
        opponent: the version it was compared with, of a gate against the champion; None if it wasn't.
        confidence: level of the interval, such as 0.95, or of a gate against the champion that could not be
            measured; None without an interval of ours, or in a verdict that did not record it.
        samples, seed: of the bootstrap draws of a gate against the champion; None of others, or if they were
            not recorded.
        machine: the one on which a lineage was looked at; None of others, or if it was not recorded.
        study: whose raters decide a gate on what people prefer; None of others.
        rules: by which raters of the study were left out; None of others, and while undecided.
    """

    metric: str
    against: str | None = None
    minimum: float | None = None
    low: float | None = None
    high: float | None = None
    outcome: Outcome = OPEN
    reason: str = ""
    maximum: float | None = None
    judge: str | None = None
    opponent: str | None = None
    confidence: float | None = None
    samples: int | None = None
    seed: int | None = None
    machine: str | None = None
    study: str | None = None
    rules: str | None = None

    @property
    def value(self) -> float | None:
        """The end of the interval that decides."""
        return self.low if self.maximum is None else self.high

    @property
    def passed(self) -> bool:
        """Whether it lets a candidate become champion; an open one doesn't yet."""
        return self.outcome == PASS

    @property
    def is_open(self) -> bool:
        """Whether it is still to be decided."""
        return self.outcome == OPEN

    @property
    def is_judged(self) -> bool:
        """Whether the reading of a judge decides the metric."""
        return self.metric in JUDGED

    def as_dict(self) -> dict[str, Any]:
        """For JSON; without what is optional and not there, such as `maximum` or `opponent`."""
        optional = {"minimum", "maximum", "judge", "opponent", "confidence", "samples", "seed", "machine"}
        optional |= {"study", "rules"}
        return {key: value for key, value in asdict(self).items() if key not in optional or value is not None}

    def text(self) -> str:
        """`pass: EPC minus r1_omni (judge embedding) +0.1200 to +0.3000 (95%), needs more than +0.0000`.

        Figures have four decimals, or as many more as it takes that they don't contradict the outcome.
        """
        what = self.metric if self.against is None else f"{self.metric} minus {self.against}"
        if self.study is not None:
            what = f"{self.metric} over {self.against} (study {self.study})"
        if self.opponent is not None:
            what += f" (version {self.opponent})"
        if self.judge is not None:
            what += " (every worthy judge)" if self.judge == EVERY else f" (judge {self.judge})"
        found = f"{what} {self._interval}" if self.value is not None else f"{what}: {self.reason or OPEN}"
        # What it would need says nothing where nothing was measured.
        told = self.outcome != CANT_TELL or self.value is not None
        needs = f", needs {self._needs}" if self._needs and told else ""
        return f"{self.outcome}: {found}{needs}" + (f"; {self.rules}" if self.rules else "")

    @property
    def _sign(self) -> str:
        return "" if self.against is None else "+"

    @property
    def _interval(self) -> str:
        digits = self._digits
        ends = dict.fromkeys(f"{end:{self._sign}.{digits}f}" for end in (self.low, self.high))
        level = "" if self.confidence is None else f" ({100 * self.confidence:g}%)"
        return " to ".join(ends) + level

    @property
    def _bound(self) -> float | None:
        return self.minimum if self.maximum is None else self.maximum

    @property
    def _needs(self) -> str:
        """What the deciding end must be; empty for a gate without a bound."""
        if self._bound is None:
            return ""
        least = f"{self._bound:{self._sign}.{self._digits}f}"
        if self.maximum is None:
            return f"{least} or more" if self.against is None else f"more than {least}"
        return f"{least} or less" if self.against is None else f"less than {least}"

    @property
    def _digits(self) -> int:
        """The fewest decimals with which both ends are on the same side of the bound as in truth."""
        ends = [end for end in (self.low, self.high) if end is not None]

        def sides(digits: int) -> list[tuple[bool, bool]]:
            bound = round(self._bound or 0.0, digits)
            return [(round(end, digits) < bound, round(end, digits) > bound) for end in ends]

        exact = sides(_MOST_DIGITS)
        return next((n for n in range(_DIGITS, _MOST_DIGITS) if sides(n) == exact), _MOST_DIGITS)


def read_verdict(item: Mapping[str, Any]) -> Verdict:
    """A verdict from JSON, also one as versions before this form have it: the deciding end, and `passed`."""
    if "outcome" in item:
        return Verdict(**item)
    kept = {key: item[key] for key in ("metric", "against", "minimum", "maximum", "judge") if key in item}
    outcome: Outcome = OPEN if item["passed"] is None else PASS if item["passed"] else FAIL
    end = item["value"]
    return Verdict(**kept, low=end, high=end, outcome=outcome, reason=item.get("reason", ""))


def nothing_withdrawn(_number: str) -> Sequence[Verdict]:
    """What a list of withdrawn clips has against a version, where nobody keeps one."""
    return ()


def tells_a_verdict(sentence: str) -> bool:
    """Whether a sentence is the text of a verdict, and not why there is none."""
    return any(sentence.startswith(f"{outcome}: ") for outcome in _WORST_FIRST)


def gate_of(verdict: Verdict) -> tuple[object, ...]:
    """Which gate a verdict is on: equal for verdicts on the same one."""
    return verdict.metric, verdict.against, verdict.minimum, verdict.maximum, verdict.judge, verdict.study


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
        Verdict(
            gate.metric, gate.against, gate.minimum, maximum=gate.maximum, judge=gate.judge, study=gate.study
        )
        for gate in gates
    ]
    return tuple(
        verdict
        if verdict.against == CHAMPION
        else replace(verdict, outcome=CANT_TELL, reason=NOT_PUBLISHED)
        if verdict.metric == PREFERENCE
        else _of_instrument(verdict, comparison)
        if verdict.metric in INSTRUMENTS
        else _decide(verdict, policy, comparison)
        for verdict in opened
    )


def _of_instrument(verdict: Verdict, comparison: Mapping[str, Any]) -> Verdict:
    """Decides a gate on what measured: the verifier's macro F1, or the accuracy of every judge that counts.

    A judge's is the lower end of its accuracy's interval, a mean over emotions; of several, the lowest.
    """
    from erv.evaluate.by_judge import worthy_judges

    if verdict.metric == VERIFIER_F1:
        value = comparison.get("verifier", {}).get("macro_f1")
    else:
        judges = comparison.get("judges", {})
        known = [judges[name]["worth"]["recall_low"] for name in worthy_judges(comparison)] if judges else []
        value = min(known, default=None)
    return judged(verdict, {"low": value, "high": value})


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
        return replace(verdict, outcome=CANT_TELL, reason=fault)
    decided = []
    for judge in judges:
        read = in_reading(comparison, judge)
        if verdict.against is None:
            interval = read["policies"][policy][SCOPE].get(verdict.metric) or {}
        else:
            interval = difference(read, policy, verdict.against, SCOPE, verdict.metric)
        decided.append(judged(verdict, interval, comparison.get("confidence")))
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
    """Of one gate in several readings: the worst outcome, and of those the farthest from passing."""

    def favour(verdict: Verdict) -> tuple[int, float]:
        rank = _WORST_FIRST.index(verdict.outcome)
        if verdict.value is None:
            return rank, float("-inf")
        return rank, verdict.value if verdict.maximum is None else -verdict.value

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
        champion: rows of the champion's predictions; if they are of other clips, no open gate can be told.
        samples: number of bootstrap draws.
        confidence: confidence level of the intervals.
        seed: seed of the draws.
        candidate_metrics: content of the candidate's `metrics.json`; None for both skips the check that judge
            and decoding are the same. If they differ, or one is not recorded, no open gate can be told.
        champion_metrics: the same for the champion.
    """
    from erv.evaluate.by_judge import worth_of_judges
    from erv.evaluate.compare import compare

    if not any(verdict.is_open for verdict in verdicts):
        return tuple(verdicts)
    why = measured_otherwise(verdicts, candidate, champion, candidate_metrics, champion_metrics)
    if why:
        return undecided(verdicts, why)
    by_judge = _by_judge(verdicts)
    worth = worth_of_judges({"candidate": candidate_metrics or {}}) or {}
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
    # A candidate that answers like the champion is judged by the interval.
    comparison |= {"same_answers": [], "judge": (candidate_metrics or {}).get("judge", {})}
    # Where the headline judge alone is asked, its worth is all that is needed of the panel.
    comparison.setdefault("judges", {name: {"worth": shown} for name, shown in worth.items()})
    return tuple(_decide(v, "candidate", comparison) if v.is_open else v for v in verdicts)


def measured_otherwise(
    verdicts: Sequence[Verdict],
    candidate: Sequence[Mapping[str, Any]],
    champion: Sequence[Mapping[str, Any]],
    candidate_metrics: Mapping[str, Any] | None,
    champion_metrics: Mapping[str, Any] | None,
) -> str:
    """Why the kept answers of the champion don't compare with the candidate's; empty if they do.

    The arguments are those of `decide_against_champion`.
    """
    from erv.evaluate.compare import READING_CODE, check_paired, lacks_content, measuring, panel_of

    if not any(verdict.is_open for verdict in verdicts):
        return ""
    if why := content_unknown(candidate):
        return why
    if candidate_metrics is not None or champion_metrics is not None:
        mine, other = measuring(candidate_metrics or {}), measuring(champion_metrics or {})
        if mine is None or other is None:
            return "the champion had a different judge or different decoding"
        if mine != other:
            if all(mine[part] == other[part] for part in mine if part != READING_CODE):
                return "the champion's answers were read by other code"
            return "the champion had a different judge or different decoding"
        if _by_judge(verdicts) and panel_of(candidate_metrics or {}) != panel_of(champion_metrics or {}):
            return "the champion was read by a different panel of judges"
    try:
        check_paired({CHAMPION: champion, "candidate": candidate})
    except EvaluationError:
        if lacks_content(champion):
            return "the champion's answers don't say which content its clips had"
        return "the champion was not evaluated on the same clips"
    return ""


def content_unknown(candidate: Sequence[Mapping[str, Any]]) -> str:
    """Why a candidate's predictions compare with nobody's answers, also new ones; empty if they may."""
    from erv.evaluate.compare import ANEW, lacks_content

    if not lacks_content(candidate):
        return ""
    return f"the candidate's predictions lack the content of their clips, as an older erv wrote them: {ANEW}"


def _by_judge(verdicts: Sequence[Verdict]) -> bool:
    return any(verdict.is_open and verdict.judge is not None for verdict in verdicts)


def unopposed(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts where there is no champion: the open ones are passed, and say so."""
    return tuple(replace(v, outcome=PASS, reason=NO_CHAMPION) if v.is_open else v for v in verdicts)


def undecided(verdicts: Sequence[Verdict], reason: str) -> tuple[Verdict, ...]:
    """The verdicts, of which the open ones can't be told."""
    return tuple(replace(v, outcome=CANT_TELL, reason=reason) if v.is_open else v for v in verdicts)


def judged(
    verdict: Verdict, interval: Mapping[str, float | None], confidence: float | None = None
) -> Verdict:
    """Decides a gate by an interval of a confidence level.

    A metric that is not defined (no clip counts) can't be told.
    """
    ends = [interval.get(end) for end in ("low", "high")]
    if any(end is None or end != end for end in ends):
        return replace(verdict, outcome=CANT_TELL, reason="could not be measured")
    # Rounded, so that the last bit of a sum does not change a bundle's hash.
    low, high = (round(float(end), 6) for end in ends if end is not None)
    near, far = (low, high) if verdict.maximum is None else (high, low)
    outcome: Outcome = PASS if _holds(verdict, near) else CANT_TELL if _holds(verdict, far) else FAIL
    return replace(verdict, low=low, high=high, outcome=outcome, confidence=confidence)


def _holds(verdict: Verdict, value: float) -> bool:
    if verdict.maximum is not None:
        return value <= verdict.maximum if verdict.against is None else value < verdict.maximum
    minimum = float(verdict.minimum or 0.0)
    return value >= minimum if verdict.against is None else value > minimum
