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


@dataclass(frozen=True)
class Against:
    """A policy compared with an earlier one.

    Attributes:
        earlier: name of the earlier policy.
        metrics: verdict -> metrics, in the headline judge's reading.
        dissent: judge -> verdict by metric, where another judge's reading gives another verdict. The first
            judge is the headline's own, so it can't dissent.
        agree: number of judges, if they all give the same verdicts; 0 otherwise.
    """

    earlier: str
    metrics: Mapping[str, Sequence[str]]
    dissent: Mapping[str, Mapping[str, str]]
    agree: int


def shown_metrics(comparison: Mapping[str, Any]) -> list[str]:
    """The metrics of a comparison, in the order of the page."""
    known = [comparison["policies"][policy][OVERALL] for policy in comparison["order"]]
    return [metric for metric in METRICS if any(metric in item for item in known)]


def verdict(figures: Mapping[str, Any], later: str, earlier: str, metric: str) -> str:
    """`better`, `worse` or `can't tell`, over all clips.

    Args:
        figures: the comparison, or one of its judges.
        later: a policy.
        earlier: a policy before it in the order of the comparison.
        metric: one that the figures have.
    """
    found = figures["verdicts"][f"{later}-{earlier}"][OVERALL].get(metric)
    return UNCLEAR if found is None else str(found["verdict"])  # see `erv.evaluate.applicable`


def difference(figures: Mapping[str, Any], later: str, earlier: str, metric: str) -> Mapping[str, Any]:
    """Value, low and high of the later policy minus the earlier one, over all clips; see `verdict`."""
    scope = figures["differences"][f"{later}-{earlier}"][OVERALL]
    found: Mapping[str, Any] = scope.get(metric) or undefined()
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


def headline(comparison: Mapping[str, Any]) -> list[Against]:
    """The last policy against each earlier one, the latest first; nothing for a single policy."""
    *earlier, last = comparison["order"]
    judges = [name for name in judges_of(comparison) if name != MAJORITY]
    return [_against(comparison, judges, last, policy) for policy in reversed(earlier)]


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


def _against(comparison: Mapping[str, Any], judges: Sequence[str], last: str, earlier: str) -> Against:
    first = {m: verdict(comparison, last, earlier, m) for m in shown_metrics(comparison)}
    found = {word: [metric for metric in first if first[metric] == word] for word in (BETTER, WORSE, UNCLEAR)}
    dissent: dict[str, dict[str, str]] = {}
    for judge in judges[1:]:
        for metric in JUDGED:
            if metric in first:
                other = verdict(comparison["judges"][judge], last, earlier, metric)
                if other != first[metric]:
                    dissent.setdefault(judge, {})[metric] = other
    return Against(earlier, found, dissent, 0 if dissent else len(judges))
