"""Which policy people prefer: shares of preferences pair by pair, and strengths over all policies.

A tie counts as half a preference for each. In the strengths, too, as the method of Bradley and Terry (1952)
knows no ties; this is the usual remedy, and the more ties, the closer together it draws the strengths. These
are natural logarithms of odds, with mean 0: a policy one above another is preferred to it with probability
0.73. They are fitted by choix (iterative Luce spectral ranking: Maystre and Grossglauser, 2015), with one tie
added between any two policies, so that one that always wins has a strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from erv.evaluate.intervals import undefined
from erv.study.analysis.draws import Draws
from erv.study.analysis.people import People, Preference

_ADDED = 0.5  # of a preference, in both directions


def preferences_of(people: People, draws: Draws) -> dict[str, Any]:
    """What pairs say.

    Returns:
        `pairs`: "later-earlier" -> `answers`, `preferred` (how many preferred the later one), `opposed`,
        `ties`, `clips`, `raters`, `checked` (how many of these have answered a check), `share` (of
        preferences for the later one, a tie as half; value, low, high) and `net` (the share that preferred
        the later one minus the share that preferred the earlier one).
        `strengths`: policy -> value, low, high; empty if nothing links all policies. A policy that only
        one rater has compared with others has a value and no interval: nothing says how far another rater
        would differ, and draws without this one know nothing of it.
    """
    pairs: dict[str, Any] = {}
    for place, later in enumerate(people.policies):
        for earlier in people.policies[:place]:
            mine = [one for one in people.preferences if (one.earlier, one.later) == (earlier, later)]
            if mine:
                pairs[f"{later}-{earlier}"] = _pair(mine, people, draws)
    return {"pairs": pairs, "strengths": _strengths(people, draws)}


def _pair(mine: Sequence[Preference], people: People, draws: Draws) -> dict[str, Any]:
    outcomes = [one.outcome for one in mine]
    share = draws.share(
        [(1 + outcome) / 2 for outcome in outcomes], [one.rater for one in mine], [one.clip for one in mine]
    )
    net = {end: None if value is None else round(2 * value - 1, 6) for end, value in share.items()}
    return {
        "answers": len(mine),
        "preferred": outcomes.count(1),
        "opposed": outcomes.count(-1),
        "ties": outcomes.count(0),
        "clips": len({one.clip for one in mine}),
        "raters": len({one.rater for one in mine}),
        "checked": len({one.rater for one in mine} & people.checked),
        "share": share,
        "net": net,
    }


def _strengths(people: People, draws: Draws) -> dict[str, Any]:
    names, count = people.policies, len(people.policies)
    if count < 2 or not _are_linked(people):
        return {}
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(people.preferences), count * count))
    for row, one in enumerate(people.preferences):
        later, earlier = place[one.later], place[one.earlier]
        wins[row, later * count + earlier] = (1 + one.outcome) / 2
        wins[row, earlier * count + later] = (1 - one.outcome) / 2
    sums = draws.sums(
        [one.rater for one in people.preferences], [one.clip for one in people.preferences], wins
    )
    value = _fitted(wins.sum(axis=0).reshape(count, count))
    drawn = np.stack([_fitted(row.reshape(count, count)) for row in sums])
    found = {name: draws.percentiles(float(value[i]), drawn[:, i]) for name, i in place.items()}
    for name, i in place.items():
        if len({one.rater for one in people.preferences if name in (one.earlier, one.later)}) == 1:
            found[name] = {**undefined(), "value": round(float(value[i]), 6)}
    return found


def _fitted(wins: np.ndarray) -> np.ndarray:
    """Strengths with mean 0, float [policies]; NaN if nothing was compared.

    Args:
        wins: how often the policy of the row was preferred to that of the column, float [policies, policies].
    """
    import choix

    if not wins.sum():
        return np.full(len(wins), np.nan)
    added = _ADDED * (1 - np.eye(len(wins)))
    found: np.ndarray = np.asarray(choix.ilsr_pairwise_dense(wins + added, max_iter=10_000, tol=1e-6))
    centred: np.ndarray = found - found.mean()
    return centred


def _are_linked(people: People) -> bool:
    """Whether comparisons lead from each policy to each other one."""
    from scipy.sparse.csgraph import connected_components

    place = {name: index for index, name in enumerate(people.policies)}
    met = np.zeros((len(place), len(place)))
    for one in people.preferences:
        met[place[one.earlier], place[one.later]] = 1
    return bool(connected_components(met, directed=False)[0] == 1)


def position_of(people: People, draws: Draws) -> dict[str, Any]:
    """Whether people prefer what they see first: 0.5 if they don't.

    Returns:
        `answers` and `first`, the share of preferences, ties left out, for the explanation shown first.
    """
    mine = [one for one in people.preferences if one.outcome and one.first_shown]
    first = (
        draws.share(
            [float(one.outcome == one.first_shown) for one in mine],
            [one.rater for one in mine],
            [one.clip for one in mine],
        )
        if mine
        else undefined()
    )
    return {"answers": len(mine), "first": first}
