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
    """What is the same in all of them, by key: where it applies, and where all of those say it.

    Of a published result, only what it states counts.
    """
    found = {key: said[0] for key in _keys(results) if len(said := _said(results, key)) == 1}
    return {key: text for key, text in found.items() if not text.startswith(UNKNOWN)}


def unknown(results: Sequence[Result]) -> list[str]:
    """The keys of which none of them knows what it was."""
    return [
        key
        for key in _keys(results)
        if (said := _said(results, key)) and all(text.startswith(UNKNOWN) for text in said)
    ]


def differing(results: Sequence[Result]) -> list[str]:
    """The keys in which they differ, or of which some don't say what it was."""
    of_none = unknown(results)
    return [key for key in _keys(results) if key not in of_none and len(_said(results, key)) > 1]


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
    """The distinct values, without those that say that it doesn't apply; an unknown one is one of them."""
    silent = (NOT_APPLICABLE, NOT_STATED)
    return list(dict.fromkeys(value for item in results if (value := item.get(key)) not in silent))
