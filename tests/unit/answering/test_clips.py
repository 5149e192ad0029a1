"""Which files a request may name."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.answering.clips import ClipError, ClipInput, ServedClips, served_clips
from erv.errors import RegistryError


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


def test_uris_as_people_write_them(root: Path, tmp_path: Path) -> None:
    """What followed a `#` or `?` was dropped, so that another file was meant."""
    for name in ("a #1?.mp4", "100% ü+.mp4"):
        (root / name).write_bytes(name.encode())
        clips = served_clips({"ERV_SERVE_ROOT": root.as_uri()})
        for uri in ((root / name).as_uri(), f"file://{root}/{name}", name):
            assert clips.file_of(ClipInput(uri), 0, tmp_path).read_bytes() == name.encode()


def test_a_root_may_be_a_uri_of_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my clips").mkdir()
    monkeypatch.chdir(tmp_path)
    uri = (tmp_path / "my clips").as_uri()
    assert "%20" in uri
    assert served_clips({"ERV_SERVE_ROOT": uri}).folder == tmp_path / "my clips"
    for other in ("file://elsewhere/clips", "file:", "file://"):
        with pytest.raises(RegistryError, match="not a folder; name the folder of the clips"):
            served_clips({"ERV_SERVE_ROOT": other})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "http://host/a.mp4",
            "clips are not read from http://; send the file in the field content, or name",
        ),
        ("HTTPS://host/a.mp4", "clips are not read from HTTPS://; send the file"),
        ("gs://bucket/a.mp4", "clips are not read from gs://; send the file"),
        ("data:video/mp4;base64,AAAA", "send the file itself in the field content"),
    ],
)
def test_other_addresses_are_told_what_to_do(root: Path, tmp_path: Path, name: str, said: str) -> None:
    for variables in ({"ERV_SERVE_ROOT": str(root)}, {}):
        with pytest.raises(ClipError) as refused:
            served_clips(variables).file_of(ClipInput(name), 0, tmp_path)
        assert said in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"clip",
        "Y2xp\r\ncA==\n",
        "data:video/mp4;base64,Y2xpcA==",
        "DATA:;BASE64,Y2xpcA==",
        bytearray(b"clip"),
    ],
)
def test_content_as_programs_write_it(tmp_path: Path, content: object) -> None:
    assert ServedClips().file_of(ClipInput(None, content), 0, tmp_path).read_bytes() == b"clip"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("data:video/mp4,clip", "the content is a data: URI, but not in base64"),
        ("data:video/mp4;base64,!", "the content is not in base64"),
        ([1, 2], "the content is neither bytes nor a text in base64"),
    ],
)
def test_content_that_is_none_says_so(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(ClipError) as refused:
        ServedClips().file_of(ClipInput(None, content), 0, tmp_path)
    assert str(refused.value) == said
