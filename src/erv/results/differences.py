"""What is the same in all rows of a table of results, and in what two rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erv.errors import EvaluationError
from erv.results.items import TITLES, in_order, named, title
from erv.results.result import NOT_APPLICABLE, NOT_STATED, UNKNOWN, Result

_SILENT = (UNKNOWN, NOT_STATED)
_METHOD = "method"  # what one method has and another lacks follows from it


@dataclass(frozen=True)
class Apart:
    """In what two results differ.

    Attributes:
        differing: keys of their settings.
        untold: keys of which one of the two doesn't say what it was.
        unsaid: keys of which neither does.
        known: whether of any key both do.
    """

    differing: tuple[str, ...]
    untold: tuple[str, ...]
    unsaid: tuple[str, ...]
    known: bool


def shared(results: Sequence[Result]) -> dict[str, str]:
    """What is the same in all of them to which it applies and of which it is known, by key."""
    return {key: said[0] for key in _keys(results) if len(said := _said(results, key)) == 1}


def differing(results: Sequence[Result]) -> list[str]:
    """The keys under which some of them are known to differ."""
    return [key for key in _keys(results) if len(_said(results, key)) > 1]


def unknown(results: Sequence[Result]) -> dict[str, int]:
    """Of how many of them it isn't known what a key was, where that is so of any."""
    counts = {key: sum(item.get(key).startswith(UNKNOWN) for item in results) for key in _keys(results)}
    return {key: count for key, count in counts.items() if count}


def items_of(results: Sequence[Result]) -> list[str]:
    """The keys by which two of these are compared: what any of them says, and all that has a title.

    What neither of two says is a key, too: it may differ.
    """
    return in_order([*TITLES, *_keys(results)])


def apart(one: Result, other: Result, keys: Sequence[str]) -> Apart:
    """In what two of them differ.

    What only one of them has counts as a difference unless they differ in method, from which it follows.

    Args:
        one: one of the two.
        other: the other.
        keys: by which they are compared, see `items_of`.
    """
    values = {key: (one.get(key), other.get(key)) for key in keys}
    method = values.get(_METHOD)
    follows = method is not None and len(set(method)) == 2
    unlike: list[str] = []
    untold: list[str] = []
    unsaid: list[str] = []
    known = False
    for key, pair in values.items():
        silent = sum(value.startswith(_SILENT) for value in pair)
        if silent:
            (untold if silent == 1 else unsaid).append(key)
            continue
        known = known or NOT_APPLICABLE not in pair
        if pair[0] != pair[1] and not (follows and NOT_APPLICABLE in pair):
            unlike.append(key)
    return Apart(tuple(unlike), tuple(untold), tuple(unsaid), known)


def between(results: Sequence[Result], first: str, second: str) -> list[str]:
    """In what two results differ, in sentences; more than one setting is never called a comparison.

    Args:
        results: all of them.
        first: the key of one of the two.
        second: the key of the other.

    Raises:
        EvaluationError: none of them has such a key.
    """
    one, other = (_of(results, key) for key in (first, second))
    found = apart(one, other, items_of(results))
    names = " and ".join(f"{item.policy} on {item.dataset} ({item.key})" for item in (one, other))
    lines = [f"{names}: {_verdict(found)}"]
    if one.dataset != other.dataset:
        lines.append("  they were tested on different data sets")
    lines += [f"  {title(key)}: {one.get(key)} → {other.get(key)}" for key in found.differing]
    if found.untold:
        lines.append(f"  can't be told, as one doesn't say: {', '.join(map(title, found.untold))}")
    if found.unsaid:
        lines.append(f"  can't be told, as neither says: {_titles(found.unsaid)}")
    return lines


def _verdict(found: Apart) -> str:
    """In how many settings, as `by_setting.js` says it, too."""
    count, silent = len(found.differing), len(found.untold) + len(found.unsaid)
    if count > 1:
        return f"they differ in {count} settings, so the difference of their figures is not that of one thing"
    if silent and not found.known:
        return "nothing is known of both settings, so in what they differ can't be told"
    more = f", and in {silent} other{'' if silent == 1 else 's'} it can't be told" if silent else ""
    if count == 1:
        return f"they differ in one setting{more}"
    return f"no setting that is known of both differs{more}" if silent else "no recorded setting differs"


def _titles(keys: Sequence[str]) -> str:
    """Titles, and how many parameters have none: of what neither says, their names would say nothing."""
    titles = [title(key) for key in keys if named(key)]
    rest = len(keys) - len(titles)
    if rest:
        titles.append(f"{rest} other parameter{'' if rest == 1 else 's'}")
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _of(results: Sequence[Result], key: str) -> Result:
    found = next((item for item in results if item.key == key), None)
    if found is None:
        raise EvaluationError(f"{key!r}: no result has this key; `erv figures` lists them")
    return found


def _keys(results: Sequence[Result]) -> list[str]:
    return in_order(key for item in results for key in item.setting)


def _said(results: Sequence[Result], key: str) -> list[str]:
    """The distinct values that are known; that it doesn't apply is none."""
    values = dict.fromkeys(item.get(key) for item in results)
    return [value for value in values if value != NOT_APPLICABLE and not value.startswith(_SILENT)]
