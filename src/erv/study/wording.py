"""Words that commands and pages share."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 rater`, `2 raters`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
