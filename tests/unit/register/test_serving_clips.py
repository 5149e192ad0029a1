"""Which files a request may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.register.serving_clips import ClipError, ClipInput, served_clips


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A link to the folder of clips; beside that, what may not be read."""
    (tmp_path / "data/clips/monday").mkdir(parents=True)
    (tmp_path / "data/clips/monday/a.mp4").write_bytes(b"clip")
    (tmp_path / "data/secret.mp4").write_bytes(b"secret")
    (tmp_path / "data/clips/outside.mp4").symlink_to("../secret.mp4")
    (tmp_path / "beside.mp4").write_bytes(b"secret")
    (tmp_path / "served").symlink_to("data/clips")
    return tmp_path / "served"


def test_a_root_that_is_a_link_may_be_named_either_way(root: Path, tmp_path: Path) -> None:
    clips = served_clips({"ERV_SERVE_ROOT": str(root)})
    for name in (
        "monday/a.mp4",
        (root / "monday/a.mp4").as_uri(),
        (root.resolve() / "monday/a.mp4").as_uri(),
    ):
        assert clips.file_of(ClipInput(name), 0, tmp_path).read_bytes() == b"clip"


@pytest.mark.parametrize(
    "path", ["", "/", "/outside.mp4", "/../secret.mp4", "/../beside.mp4", "2/monday/a.mp4", "/gone.mp4"]
)
def test_nothing_outside_of_a_root_that_is_a_link(root: Path, tmp_path: Path, path: str) -> None:
    clips = served_clips({"ERV_SERVE_ROOT": str(root)})
    for start in (root, root.resolve()):
        with pytest.raises(ClipError, match="no such file below the served folder"):
            clips.file_of(ClipInput(f"file://{start}{path}"), 0, tmp_path)
    with pytest.raises(ClipError, match="no such file below the served folder"):
        clips.file_of(ClipInput((tmp_path / "beside.mp4").as_uri()), 0, tmp_path)
