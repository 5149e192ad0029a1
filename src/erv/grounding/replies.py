"""What judges reply: claims and facts, as lists of a JSON object, each quoting what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.chat.protocol import one_line
from erv.grounding.claims import KINDS, Claim, Fact

MOST = 20  # claims, and facts, in a reply
VERDICTS = {"true": True, "false": False, "unknown": None}


def items(given: Any, name: str, last: str) -> list[tuple[str, str, Any]] | str:
    """The entries of a list in a reply; or what is wrong with it.

    Args:
        given: the list, as it came.
        name: its key in the reply.
        last: what its entries have beside text and kind: `verdict` or `mentioned`.
    """
    if not isinstance(given, list):
        return f"{name} is not a list"
    if len(given) > MOST:
        return f"{name} has {len(given)} entries, more than {MOST}"
    found = []
    for item in given:
        if not isinstance(item, dict) or set(item) != {"text", "kind", last}:
            return f"an entry of {name} has not the keys text, kind and {last}"
        if not isinstance(item["text"], str) or not item["text"].strip():
            return f"a text of {name} is empty"
        if item["kind"] not in KINDS:
            return f"a kind of {name} is not one of {', '.join(KINDS)}"
        if last == "mentioned" and not isinstance(item[last], bool):
            return f"{last} of {name} is neither true nor false"
        if last == "verdict" and item[last] not in tuple(VERDICTS):
            return f"{last} of {name} is not one of {', '.join(VERDICTS)}"
        found.append((item["text"].strip(), item["kind"], item[last]))
    return found


def unquoted(found: Sequence[Claim | Fact], text: str) -> str:
    """What is wrong with the first entry that quotes what a text doesn't say; empty if there is none."""
    for item in found:
        if _plain(item.text) not in _plain(text):
            return f"quotes {one_line(item.text, 60)!r}, which is not in the text"
    return ""


def _plain(text: str) -> str:
    """Letters and digits alone: a judge may change case, blanks and marks when it copies."""
    return "".join(mark for mark in text.casefold() if mark.isalnum())
