"""Which clips of the served folder a page can pick."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from erv.answering.clips import ClipError, ServedClips
from erv.app import clips
from erv.app.clips import file_of, listed, media_type_of


@pytest.fixture
def served(tmp_path: Path) -> ServedClips:
    root = tmp_path / "served"
    (root / "b").mkdir(parents=True)
    others = ("notes.txt", "._1.mp4", "b/labels.csv", ".env", "page.html", "page.js", "b/__MACOSX/1.mp4")
    (root / "b/__MACOSX").mkdir()
    for name in ("b/2.mp4", "1 ü#?.webm", *others):
        (root / name).write_bytes(name.encode())
    (root / os.fsdecode(b"\xff.mp4")).touch()
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (root / "out.mp4").symlink_to("../secret.mp4")
    (root / "up").symlink_to("..")
    return ServedClips(root.resolve())


def test_videos_are_listed_by_name(served: ServedClips, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(served) == ["1 ü#?.webm", "b/2.mp4"]
    assert listed(ServedClips()) == []
    monkeypatch.setattr(clips, "MOST", 1)
    assert len(listed(served)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "out.mp4",
        "up/secret.mp4",
        "/etc/passwd",
        "b",
        "gone.mp4",
        "s3://a/b",
        "file:///etc/passwd",
        "",
        "notes.txt",
        "._1.mp4",
        "b/labels.csv",
        ".env",
        "page.html",
        "page.js",
        "b/__MACOSX/1.mp4",
    ],
)
def test_nothing_else_is_read(served: ServedClips, name: str) -> None:
    assert file_of(served, "b/2.mp4").read_bytes() == b"b/2.mp4"
    with pytest.raises(ClipError):
        file_of(served, name)


def test_a_clip_is_sent_as_a_video() -> None:
    assert media_type_of("a/b.MP4") == "video/mp4"
    assert media_type_of("b.webm") == "video/webm"
    assert media_type_of("page.html") == "application/octet-stream"
