"""The gates in the card of a version: a bundle is written before those against the champion are decided."""

from __future__ import annotations

import re
from collections.abc import Sequence

from erv.register.verdict import OPEN, Verdict

_GATES = re.compile(r"(?m)^## Gates\n\n(?P<lines>(?:- .*\n?)*)")
_UNDECIDED = re.compile(rf"(?m)^- {OPEN}: (?P<gate>.+?)(?:: {OPEN})?(?P<needs>, needs .+)?$")


def with_verdicts(card: str, verdicts: Sequence[Verdict] | None) -> str:
    """A card with the verdicts that the registry has, in place of those of the bundle.

    Args:
        card: Markdown, as `register` writes it.
        verdicts: None if the gates were never decided; then the open ones say so.
    """
    if verdicts is None:
        return _UNDECIDED.sub(r"- not decided: \g<gate>\g<needs>", card)
    # Each in one line, so that the whole list is replaced when gates are decided again.
    lines = "".join(f"- {' '.join(verdict.text().split())}\n" for verdict in verdicts)
    return _GATES.sub(lambda _: f"## Gates\n\n{lines}", card, count=1)
