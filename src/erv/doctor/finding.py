"""What the doctor found in one place, and how it lists names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What the doctor found in one place: `warn` is worth knowing, `fail` must be fixed."""

    name: str
    state: State
    detail: str
    remedy: str = ""


def some(names: list[str], limit: int = 4) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
