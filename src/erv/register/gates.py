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
from dataclasses import replace
from typing import Any

from erv.errors import EvaluationError, RegistryError
from erv.register.verdict import CANT_TELL, CHAMPION, FAIL, PASS, WORST_FIRST, Outcome, Verdict
from erv.settings import GateSettings
from erv.settings.register import EVERY, INSTRUMENTS, PREFERENCE

SCOPE = "overall"
NO_CHAMPION = "there was no champion to compare with"
NOT_PUBLISHED = "people's preferences are looked up when the candidate is published"
VERIFIER_F1, JUDGE_ACCURACY = INSTRUMENTS  # what measured, not what was measured


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
        rank = WORST_FIRST.index(verdict.outcome)
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
