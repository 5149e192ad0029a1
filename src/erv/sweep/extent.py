"""How far a sweep goes: each call may say so anew, unlike its plan, or goes on as before."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from erv.errors import SettingsError
from erv.files import write_document
from erv.sweep.wish import Wish

FILE = "extent.json"


@dataclass(frozen=True)
class Extent:
    """How far a sweep goes.

    Attributes:
        trials: how many there are to be in all.
        at_a_time: how many run side by side.
        most_failed: how many may fail.
        propose: whether the best is proposed.
    """

    trials: int = 20
    at_a_time: int = 1
    most_failed: int = 3
    propose: bool = True


def read_extent(folder: Path, wish: Wish) -> Extent:
    """The extent of a call.

    Args:
        folder: of the sweep.
        wish: what it says of it; the rest is as before, or the usual.

    Raises:
        SettingsError: what the sweep keeps of it is damaged.
    """
    before = Extent()
    path = folder / FILE
    if path.is_file():
        try:
            before = Extent(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise SettingsError(f"{path}: damaged; delete it, and say --trials and the like again") from None
    return Extent(
        wish.trials or before.trials,
        wish.at_a_time or before.at_a_time,
        before.most_failed if wish.most_failed < 0 else wish.most_failed,
        wish.propose == "yes" if wish.propose else before.propose,
    )


def save_extent(extent: Extent, folder: Path) -> None:
    """Keeps it for the next call."""
    write_document(asdict(extent), folder / FILE)
