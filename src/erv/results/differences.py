"""What is the same in all rows of a table of results, and in what two rows differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from erv.results.items import in_order
from erv.results.result import NOT_APPLICABLE, NOT_STATED, UNKNOWN, Result

_SILENT = (UNKNOWN, NOT_STATED)
_METHOD = "method"  # what one method has and another lacks follows from it


@dataclass(frozen=True)
class Apart:
    """In what two results differ.

    Attributes:
        differing: keys of their settings.
        untold: keys of which one of the two doesn't say what it was.
    """

    differing: tuple[str, ...]
    untold: tuple[str, ...]


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


def apart(one: Result, other: Result) -> Apart:
    """In what two of them differ.

    What only one of them has counts as a difference unless they differ in method, from which it follows.
    """
    values = {key: (one.get(key), other.get(key)) for key in _keys([one, other])}
    method = values.get(_METHOD)
    follows = method is not None and len(set(method)) == 2
    unlike, untold = [], []
    for key, pair in values.items():
        if any(value.startswith(_SILENT) for value in pair):
            untold.append(key)
        elif pair[0] != pair[1] and not (follows and NOT_APPLICABLE in pair):
            unlike.append(key)
    return Apart(tuple(unlike), tuple(untold))


def _keys(results: Sequence[Result]) -> list[str]:
    return in_order(key for item in results for key in item.setting)


def _said(results: Sequence[Result], key: str) -> list[str]:
    """The distinct values that are known; that it doesn't apply is none."""
    values = dict.fromkeys(item.get(key) for item in results)
    return [value for value in values if value != NOT_APPLICABLE and not value.startswith(_SILENT)]
