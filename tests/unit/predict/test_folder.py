"""Which videos below a folder are asked about: none is lost, and nothing outside is read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from erv.commands.predict import named
from erv.errors import DataError
from erv.predict.listing import Listing, Unread, list_clips

OUT = "a link that leads out of the folder; machine.allowed_roots can name where links may lead"
NOWHERE = "a link that leads nowhere; mend or remove it"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clips/monday").mkdir(parents=True)
    (tmp_path / "clips/monday/a.mp4").write_bytes(b"a")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.mp4").write_bytes(b"secret")
    return tmp_path / "clips"


def faults(listing: Listing) -> dict[str, str | None]:
    return {clip.name: clip.fault for clip in listing.clips}


def test_a_name_that_is_no_text_costs_its_row_only(folder: Path) -> None:
    """It ended the whole command when the answers were written."""
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xe4.mp4")).write_bytes(b"b")
    assert faults(list_clips(folder)) == {
        "monday/a.mp4": None,
        r"\xff\xe4.mp4": "its path is not UTF-8; rename it",
    }


def test_links_are_followed_within_the_folder_and_named_otherwise(folder: Path, tmp_path: Path) -> None:
    """Links to folders and broken ones were passed over in silence, and those to files led anywhere."""
    (folder / "again.mp4").symlink_to("monday/a.mp4")
    (folder / "broken.mp4").symlink_to("gone.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    (folder / "secret.mp4").symlink_to("../outside/secret.mp4")
    (folder / "up").symlink_to("..")
    (folder / "same").symlink_to("monday")
    (folder / "monday/top").symlink_to("../../clips")
    (folder / "notes").symlink_to("gone")
    listing = list_clips(folder)
    assert faults(listing) == {
        "again.mp4": None,
        "broken.mp4": NOWHERE,
        "loop.mp4": NOWHERE,
        "monday/a.mp4": None,
        "secret.mp4": OUT,
    }
    assert listing.skipped == (
        "monday/top: a folder whose clips are listed under another name",
        f"notes: {NOWHERE}",
        "same: a folder whose clips are listed under another name",
        f"up: {OUT}",
    )
    assert {clip.sha256 for clip in listing.clips if clip.fault} == {None}
    allowed = list_clips(folder, [str(tmp_path / "outside")])
    assert faults(allowed)["secret.mp4"] is None


def test_a_linked_folder_in_an_allowed_root_is_listed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside/back").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/part").mkdir()
    (tmp_path / "outside/part/b.mp4").write_bytes(b"b")
    (folder / "a part").symlink_to(tmp_path / "outside/part")
    for name in ("linked", "twice"):
        (folder / name).symlink_to(tmp_path / "outside")
    listing = list_clips(folder, [str(tmp_path / "outside")])
    assert [clip.name for clip in listing.clips] == ["a part/b.mp4", "linked/secret.mp4", "monday/a.mp4"]
    assert [text.partition(":")[0] for text in listing.skipped] == ["linked/back", "linked/part/", "twice"]


def test_a_folder_may_be_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert faults(list_clips(tmp_path / "link")) == {"monday/a.mp4": None}


def test_pipes_and_endless_paths_are_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    deep = folder
    for _ in range(6):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / "long.mp4").write_bytes(b"c")
    (folder / f"{'e' * 251}.mp4").write_bytes(b"e")
    said = faults(list_clips(folder))
    assert said.pop("pipe.mp4") == "a pipe, a socket or a device, not a file"
    assert said.pop(f"{'e' * 251}.mp4") is None
    assert said.pop("monday/a.mp4") is None
    assert list(said.values()) == [
        "its path is longer than 1024 characters, which no version takes; move the folder up"
    ]


def test_what_may_not_be_read_has_a_row_or_a_name() -> None:
    with tempfile.TemporaryDirectory() as top:
        Path(top).chmod(0o755)
        for name in ("open.mp4", "closed.mp4", "closed/b.mp4"):
            (Path(top) / name).parent.mkdir(exist_ok=True)
            (Path(top) / name).write_bytes(b"a")
        closed = [Path(top) / "closed.mp4", Path(top) / "closed"]
        for path in closed:
            path.chmod(0)
        me = os.geteuid()
        try:
            if me == 0:  # nothing is closed to root
                os.seteuid(65534)
            listing = list_clips(Path(top))
        finally:
            os.seteuid(me)
            for path in closed:
                path.chmod(0o755)
    assert faults(listing) == {"closed.mp4": "can't be read (Permission denied)", "open.mp4": None}
    assert listing.skipped == ("closed/: can't be opened (Permission denied)",)


def test_a_clip_that_goes_or_changes_after_listing_is_not_taken_for_what_it_was(folder: Path) -> None:
    (folder / "b.mp4").write_bytes(b"b")
    (folder / "c.mp4").write_bytes(b"c")
    listing = list_clips(folder)
    (folder / "b.mp4").unlink()
    (folder / "c.mp4").write_bytes(b"d")
    gone, changed, good = listing.files([0, 1, 2])
    assert isinstance(gone, Unread)
    assert "can't be read now (No such file or directory); run the same command again" in gone.reason
    assert isinstance(changed, Unread)
    assert changed.reason.startswith("was changed since the folder was listed")
    assert good == folder / "monday/a.mp4"
    assert listing.clips[2].sha256 == hashlib.sha256(b"a").hexdigest()


def test_a_folder_without_videos_says_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "videos").symlink_to(tmp_path.parent)
    with pytest.raises(DataError) as refused:
        list_clips(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}: no videos below this folder, by the endings of their names; not looked into: videos:"
        f" {OUT}"
    )


def test_neither_folder_nor_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clips in S3 are asked about by their manifest"):
        list_clips(Path("s3://bucket/clips"))


def test_what_was_skipped_is_counted_and_named() -> None:
    assert named(["a: why"]) == "1 of the folder (a: why)"
    many = named([f"{number}: why" for number in range(25)])
    assert many.startswith("25 of the folder (0: why; 1: why; ")
    assert many.endswith("; 19: why; and 5 more)")
