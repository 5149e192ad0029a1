"""What the comparison says in words, and the sentences at the top of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.errors import EvaluationError
from erv.evaluate.evaluate import OVERALL
from erv.evaluate.intervals import undefined
from erv.evaluate.judges.panel import MAJORITY
from erv.evaluate.metrics import JUDGED, METRICS
from erv.evaluate.significance import BETTER, UNCLEAR, WORSE

NOT_APPLICABLE = "doesn't apply"  # what is said of explanations where a policy gives none
_TURNED = {BETTER: WORSE, WORSE: BETTER}


@dataclass(frozen=True)
class Against:
    """A policy compared with another one.

    Attributes:
        other: name of the other policy.
        metrics: verdict -> metrics, in the headline judge's reading; `NOT_APPLICABLE` only if there are any.
        dissent: judge -> verdict by metric, where another judge's reading gives another verdict. The first
            judge is the headline's own, so it can't dissent.
        agree: number of judges, if they all give the same verdicts; 0 otherwise, and where nothing that a
            judge reads applies.
    """

    other: str
    metrics: Mapping[str, Sequence[str]]
    dissent: Mapping[str, Mapping[str, str]]
    agree: int


def shown_metrics(comparison: Mapping[str, Any]) -> list[str]:
    """The metrics of a comparison, in the order of the page."""
    known = [comparison["policies"][policy][OVERALL] for policy in comparison["order"]]
    return [metric for metric in METRICS if any(metric in item for item in known)]


def unexplained(comparison: Mapping[str, Any]) -> list[str]:
    """The policies that answer without explaining, see `erv.evaluate.applicable`."""
    figures = comparison["policies"]
    return [name for name in comparison["order"] if not set(JUDGED).intersection(figures[name][OVERALL])]


def others(order: Sequence[str], subject: str) -> list[str]:
    """The policies that one is compared with: those before it, the nearest first, then those after it."""
    place = order.index(subject)
    return [*reversed(order[:place]), *order[place + 1 :]]


def verdict(figures: Mapping[str, Any], policy: str, other: str, metric: str) -> str:
    """`better`, `worse` or `can't tell` for a policy against another, over all clips, or `NOT_APPLICABLE`.

    Args:
        figures: the comparison, or one of its judges.
        policy: a policy.
        other: another one, before or after it in the order of the comparison.
        metric: one of those of the page.
    """
    scope, turned = _of_pair(figures["verdicts"], policy, other)
    if metric not in scope:
        return NOT_APPLICABLE  # see `erv.evaluate.applicable`
    word = str(scope[metric]["verdict"])
    return _TURNED.get(word, word) if turned else word


def difference(figures: Mapping[str, Any], policy: str, other: str, metric: str) -> Mapping[str, Any]:
    """Value, low and high of a policy minus another one, over all clips; see `verdict`."""
    scope, turned = _of_pair(figures["differences"], policy, other)
    found: Mapping[str, Any] = scope.get(metric) or undefined()
    if turned and found["value"] is not None:
        return {"value": 0.0 - found["value"], "low": 0.0 - found["high"], "high": 0.0 - found["low"]}
    return found


def judges_of(comparison: Mapping[str, Any]) -> list[str]:
    """The judges of a comparison, in the panel's order; the last may be `MAJORITY`, which is no judge.

    Raises:
        EvaluationError: the comparison has no judges, or a judge lacks its worth, figures or a policy.
    """
    judges = comparison.get("judges")
    if not judges:
        raise EvaluationError(
            "the comparison has no figures by judge (`judges`), so the page can't show them side by side;"
            " run `dvc repro evaluate report` again"
        )
    for name, found in judges.items():
        lacking = [key for key in ("worth", "policies", "differences", "verdicts") if key not in found]
        lacking += [policy for policy in comparison["order"] if policy not in found.get("policies", {})]
        if lacking:
            raise EvaluationError(
                f"the comparison's judge {name!r} lacks {', '.join(lacking)};"
                " run `dvc repro evaluate report` again"
            )
    return list(judges)


def headline(comparison: Mapping[str, Any], subject: str | None = None) -> list[Against]:
    """A policy against each other one; nothing for a single policy.

    Args:
        comparison: with figures by judge.
        subject: the policy; None for the last.
    """
    order = comparison["order"]
    subject = subject or order[-1]
    judges = [name for name in judges_of(comparison) if name != MAJORITY]
    return [_against(comparison, judges, subject, policy) for policy in others(order, subject)]


def corrected(comparison: Mapping[str, Any]) -> bool:
    """Whether the verdicts also rest on p-values that are corrected for the number of metrics."""
    pairs = comparison["verdicts"].values()
    return any("p_holm" in item for scopes in pairs for item in scopes[OVERALL].values())


def worth_in_words(judge: str, worth: Mapping[str, Any] | None) -> dict[str, str]:
    """How good a judge is on labelled texts.

    Args:
        judge: its name, or `MAJORITY`.
        worth: accuracy, low, high and recall (shares; recall is a mean over emotions) and texts (their
            number); None for the majority, and where nothing was measured.

    Returns:
        `figure`, in percent, and `about`: the interval, the number of texts, the mean over emotions.
    """
    if judge == MAJORITY:
        return {"figure": "no judge", "about": "what more than half of the judges name"}
    if not worth or not worth["texts"]:
        return {"figure": "not measured", "about": "no labelled text"}
    low, high, recall = (100 * worth[name] for name in ("low", "high", "recall"))
    return {
        "figure": f"{100 * worth['accuracy']:.1f}% right",
        "about": f"{low:.1f} to {high:.1f}, on {worth['texts']} texts; {recall:.1f}% over emotions",
    }


def _of_pair(by_pair: Mapping[str, Any], policy: str, other: str) -> tuple[Mapping[str, Any], bool]:
    """What is said of two policies over all clips, and whether it is said of the other one."""
    pair = f"{policy}-{other}"
    turned = pair not in by_pair
    return by_pair[f"{other}-{policy}" if turned else pair][OVERALL], turned


def _against(comparison: Mapping[str, Any], judges: Sequence[str], subject: str, policy: str) -> Against:
    first = {m: verdict(comparison, subject, policy, m) for m in shown_metrics(comparison)}
    found = {word: [metric for metric in first if first[metric] == word] for word in (BETTER, WORSE, UNCLEAR)}
    if idle := [metric for metric in first if first[metric] == NOT_APPLICABLE]:
        found[NOT_APPLICABLE] = idle
    read = [metric for metric in JUDGED if metric in first and metric not in idle]
    dissent: dict[str, dict[str, str]] = {}
    for judge in judges[1:]:
        for metric in read:
            other = verdict(comparison["judges"][judge], subject, policy, metric)
            if other != first[metric]:
                dissent.setdefault(judge, {})[metric] = other
    return Against(policy, found, dissent, 0 if dissent or not read else len(judges))
