"""What bundles in folders are called: shortly, each otherwise, and never by an absolute path."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.app.titles import titles_of


@pytest.mark.parametrize(
    ("folders", "titles"),
    [
        (["/srv/models/candidate"], ["candidate"]),
        (["/srv/a/first", "/srv/a/second"], ["first", "second"]),
        (["/srv/models/candidate", "/srv/older/candidate"], ["models/candidate", "older/candidate"]),
        (["/srv/a/m/c", "/srv/b/m/c", "/srv/m/d"], ["a/m/c", "b/m/c", "d"]),
        (["/c", "/srv/c"], ["c", "srv/c"]),
    ],
)
def test_titles(folders: list[str], titles: list[str]) -> None:
    assert titles_of([Path(folder) for folder in folders]) == titles


def test_a_path_as_typed_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here/candidate", "older/candidate"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert titles_of([Path("candidate"), Path("../older/candidate")]) == ["here/candidate", "older/candidate"]
    monkeypatch.chdir(tmp_path / "here/candidate")
    assert titles_of([Path()]) == ["candidate"]
