"""Which raters failed checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erv.errors import DataError
from erv.study.analysis.people import People


@dataclass(frozen=True)
class Rules:
    """Whose answers are left out.

    Attributes:
        failed_attention: attention checks that a rater may fail.
        gold_share: share of the gold items that a rater must answer as expected.
        without: raters who don't count whatever they answered, by their pseudonyms.
        listed: the same, of whom some may be of other studies.
    """

    failed_attention: int = 0
    gold_share: float = 0.5
    without: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()


def checks_of(people: People, rules: Rules) -> dict[str, Any]:
    """What raters said where the answer is known.

    Returns:
        `rules`, `raters`: rater -> `attention` and `gold` (each `asked` and `failed`) and `passed`, None of
        one who has answered no check yet; `failed`: those that did not pass, sorted, with those that don't
        count by the rules.

    Raises:
        DataError: a rater who is not to count has answered nothing.
    """
    if unknown := sorted(set(rules.without) - set(people.raters)):
        raise DataError(
            f"rater {unknown[0]!r} has no answer in the table; expected some of {', '.join(people.raters)}"
        )
    without = {*rules.without, *rules.listed} & set(people.raters)
    raters: dict[str, Any] = {}
    for rater in people.raters:
        found = {}
        for role in ("attention", "gold"):
            mine = [one.passed for one in people.checks if (one.rater, one.role) == (rater, role)]
            found[role] = {"asked": len(mine), "failed": mine.count(False)}
        gold = found["gold"]
        right = gold["asked"] - gold["failed"]
        passed: bool | None = (
            found["attention"]["failed"] <= rules.failed_attention
            and right >= rules.gold_share * gold["asked"]
            and rater not in without
        )
        if passed and rater not in people.checked:
            passed = None
        raters[rater] = {**found, "passed": passed}
    return {
        "rules": {
            "failed_attention": rules.failed_attention,
            "gold_share": rules.gold_share,
            "without": sorted(without),
        },
        "raters": raters,
        "failed": [rater for rater, found in raters.items() if found["passed"] is False],
    }
