"""Which files of a source are new, gone or changed since it was pinned."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from erv.errors import DataError
from erv.pinning import Repinned, look_again
from erv.sources.lock import LOCKS


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_text(name)
    (tmp_path / "work").mkdir()
    assert look(folder).save()
    return folder


def look(source: Path) -> Repinned:
    return look_again("mafw", str(source), None, workspace=source.parent / "work")


def test_nothing_new(source: Path) -> None:
    found = look(source)
    assert not found.is_new
    assert found.text() == "mafw: nothing differs"
    assert not found.save()


def test_what_differs_is_said_and_written_only_when_saved(source: Path) -> None:
    (source / "a.mp4").write_text("other")
    (source / "b.mp4").unlink()
    for name in "cdefg":
        (source / f"{name}.mp4").write_text(name)
    found = look(source)
    assert found.is_new
    assert found.text() == (
        "mafw: 5 files added (c.mp4, d.mp4, e.mp4, …), 1 file removed (b.mp4), 1 file changed (a.mp4)"
    )
    assert look(source).is_new, "nothing was written"
    assert found.save()
    assert not look(source).is_new


def test_a_damaged_lock_is_an_error_unless_somebody_is_told(source: Path) -> None:
    (source.parent / "work" / LOCKS / "mafw.lock.json").write_text("{")
    with pytest.raises(DataError, match="not a lock file"):
        look(source)
    told: list[DataError] = []
    with contextlib.chdir(source.parent / "work"):
        found = look_again("mafw", str(source), None, damaged=told.append)
    assert len(told) == 1
    assert found.added == ("a.mp4", "b.mp4")
