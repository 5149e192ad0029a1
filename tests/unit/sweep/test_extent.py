"""How far a sweep goes is remembered, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.errors import SettingsError
from erv.sweep.extent import FILE, Extent, read_extent, save_extent
from erv.sweep.wish import Wish


def test_what_is_not_said_is_as_before(tmp_path: Path) -> None:
    save_extent(Extent(trials=7, at_a_time=2, most_failed=0, propose=False), tmp_path)
    assert read_extent(tmp_path, Wish("beta")) == Extent(7, 2, 0, propose=False)
    more = Wish("beta", trials=9, most_failed=1, propose="yes")
    assert read_extent(tmp_path, more) == Extent(9, 2, 1, propose=True)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"trial": 3}'])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    """It went on with the usual twenty trials."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SettingsError, match=r"extent.json: damaged; delete it"):
        read_extent(tmp_path, Wish("beta"))
