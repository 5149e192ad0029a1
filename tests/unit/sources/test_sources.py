import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from erv import files
from erv.commands.data import command
from erv.errors import DataError
from erv.pinning import pin
from erv.sources import Lock, Selection, fetch_all, threads


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "raw"
    for name, text in {"b.txt": "two", "a/x (1).txt": "one", "a/b/c.txt": "three"}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_lock_lists_every_file_sorted(tree, tmp_path):
    lock = pin("raw", str(tree), None)
    assert [file.path for file in lock.files] == ["a/b/c.txt", "a/x (1).txt", "b.txt"]
    assert lock.find("b.txt").bytes == 3
    path = tmp_path / "raw.lock.json"
    assert lock.save(path)
    assert not lock.save(path)
    assert Lock.load(path) == lock
    assert path.read_text().endswith("}\n")


def test_content_is_verified(tree):
    lock = pin("raw", str(tree), None)
    assert lock.read(None, "b.txt") == b"two"
    (tree / "b.txt").write_text("2")
    with pytest.raises(DataError, match=r"b\.txt: content has changed since it was pinned"):
        lock.read(None, "b.txt")
    (tree / "b.txt").unlink()
    with pytest.raises(DataError, match="file not found"):
        lock.read(None, "b.txt")
    with pytest.raises(DataError, match="has no file 'z'"):
        lock.read(None, "z")


def test_a_tree_is_copied_as_a_whole(tree, tmp_path):
    lock = pin("raw", str(tree), None)
    target = tmp_path / "out"
    target.mkdir()
    (target / "stale").write_text("")
    lock.fetch_tree(None, "a", target)
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        "b/c.txt",
        "x (1).txt",
    ]
    with pytest.raises(DataError, match="nothing below 'zz'"):
        lock.fetch_tree(None, "zz", target)


def test_many_files_come_in_order(tmp_path):
    root = tmp_path / "many"
    root.mkdir()
    for index in range(80):
        (root / f"{index:03d}").write_text(str(index))
    lock = pin("many", str(root), None)
    rows = [_Row(lock.uri_of(file.path), file.sha256) for file in lock.files]
    assert [path.read_text() for path in fetch_all(rows, lock, None)] == [str(index) for index in range(80)]


def test_what_cannot_be_pinned_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is nothing below"):
        pin("x", str(tmp_path / "empty"), None)
    with pytest.raises(DataError, match="is not a folder"):
        pin("x", str(tmp_path / "none"), None)
    with pytest.raises(DataError, match="source is not pinned; run `erv data pin`"):
        Lock.load(tmp_path / "x.lock.json")
    (tmp_path / "x.lock.json").write_text("[]")
    with pytest.raises(DataError, match="not a lock file"):
        Lock.load(tmp_path / "x.lock.json")


class _Row:
    def __init__(self, uri, sha256):
        self.uri, self.sha256 = uri, sha256


OUTSIDE = ["policy/../../../escaped.txt", "/escaped.txt", "policy//escaped.txt", "..", "a/./b", ""]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_lock_whose_paths_lead_out_of_the_source_is_refused(tmp_path, name):
    path = tmp_path / "base.lock.json"
    files = [{"path": p, "bytes": 1, "sha256": "0" * 64, "version_id": None} for p in ("policy/a", name)]
    path.write_text(json.dumps({"name": "base", "uri": "s3://bucket/raw", "files": files}))
    with pytest.raises(DataError) as refusal:
        Lock.load(path)
    assert f"{name!r} is not a plain path below s3://bucket/raw" in str(refusal.value)


@pytest.mark.parametrize("name", OUTSIDE[:3])
def test_keys_that_lead_out_of_the_source_are_not_pinned(tmp_path, name):
    class Hostile:
        def list(self, uri):
            return [type("Object", (), {"uri": uri + name, "size": 1, "version_id": None})]

    with pytest.raises(DataError, match="is not a plain path") as refusal:
        pin("base", "s3://bucket/raw", Hostile(), cache=tmp_path / "cache")
    assert repr(name) in str(refusal.value)


def test_names_with_dots_in_them_are_plain(tree):
    (tree / "a" / "..c..").write_text("")
    assert "a/..c.." in pin("raw", str(tree), None)


def test_a_lock_has_a_line_per_file_and_old_ones_still_load(tree, tmp_path):
    lock = pin("raw", str(tree), None)
    lines = lock.text().splitlines()
    assert lines[0] == f'{{"name": "raw", "uri": "{tree}", "skipped": {{"files": 0, "bytes": 0}}, "files": ['
    assert [json.loads(line.rstrip(","))["path"] for line in lines[1:-1]] == [
        file.path for file in lock.files
    ]
    files = [vars(file) for file in lock.files]
    old = [{key: file[key] for key in ("path", "bytes", "sha256", "version_id")} for file in files]
    path = tmp_path / "raw.lock.json"
    path.write_text(json.dumps({"name": "raw", "uri": str(tree), "files": old}, indent=2))
    assert Lock.load(path) == lock


ZERO = "0" * 64
CLIP = {"path": "clips/1.mp4", "bytes": 1, "sha256": ZERO, "version_id": None}
ZIP = {"path": "clips.zip", "bytes": 1, "sha256": ZERO, "version_id": None}
MEMBER = {**CLIP, "archive": "clips.zip", "member": "1.mp4"}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([{**CLIP, "sha256": "../../escaped"}], "sha256 must be 64 hex digits"),
        ([{**CLIP, "sha256": ZERO + "\n"}], "sha256 must be 64 hex digits"),
        ([{**CLIP, "bytes": -1}], "bytes must be a whole number"),
        ([{**CLIP, "frames": 0}], "frames must be a whole number from 1"),
        ([CLIP, CLIP], "a path occurs twice"),
        ([MEMBER], "its archive 'clips.zip' is not listed"),
        ([ZIP, {**CLIP, "archive": "clips.zip"}], "archive and member belong together"),
        ([ZIP, {**MEMBER, "member": ""}], "member is empty"),
        ([{**ZIP, "path": "../clips.zip"}, {**MEMBER, "archive": "../clips.zip"}], "is not a plain path"),
        ([ZIP, {**MEMBER, "member": "../1.mp4"}], "'../1.mp4' is not a plain path"),
        ([{**CLIP, "path": "a\0b"}], "is not a plain path"),
        ([{**CLIP, "colour": "red"}], "unexpected keyword argument 'colour'"),
    ],
)
def test_a_lock_that_none_of_ours_can_be(tmp_path, files, why):
    path = tmp_path / "x.lock.json"
    path.write_text(json.dumps({"name": "x", "uri": "s3://b/x", "files": files}))
    with pytest.raises(DataError) as refusal:
        Lock.load(path)
    assert why in str(refusal.value)


def test_rows_that_do_not_belong_to_the_lock(tree):
    lock = pin("raw", str(tree), None)
    for row in (_Row(f"{tree}/z.txt", ZERO), _Row(f"{tree}/b.txt", ZERO)):
        with pytest.raises(DataError, match="the manifest does not match the lock of raw; run ingest again"):
            list(fetch_all([row], lock, None))


def test_links_are_followed_within_the_source(tree):
    (tree / "again").symlink_to(tree / "a")
    (tree / "alias.txt").symlink_to("b.txt")
    lock = pin("raw", str(tree), None)
    assert {"again/b/c.txt", "again/x (1).txt", "alias.txt"} < set(lock.by_path)
    assert lock.read(None, "again/b/c.txt") == b"three"


def test_a_source_may_itself_be_a_link(tree, tmp_path):
    (tmp_path / "link").symlink_to(tree)
    assert set(pin("raw", str(tmp_path / "link"), None).by_path) == set(pin("raw", str(tree), None).by_path)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_links_that_lead_out_are_refused(tree, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "clip.mp4").write_text("clip")
    target = outside if kind == "folder" else outside / "clip.mp4"
    (tree / "a" / "linked").symlink_to(target)
    with pytest.raises(DataError) as refusal:
        pin("raw", str(tree), None)
    assert str(refusal.value) == (
        f"source raw: the link {tree}/a/linked leads out of {tree}, to {target}; set sources.raw to the place"
        " itself, copy what it points to, or name a folder above that place in machine.allowed_roots"
    )


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_links_may_lead_into_an_allowed_root(tree, tmp_path, kind):
    """Labels on one disk, clips linked from another: the root is itself a link, as a mount often is."""
    mount = tmp_path / "mount"
    (mount / "clips").mkdir(parents=True)
    (mount / "clips/one.mp4").write_text("clip")
    (tmp_path / "mnt").symlink_to(mount)
    target = mount / "clips" / ("one.mp4" if kind == "file" else "")
    (tree / "linked").symlink_to(target)
    path = "linked" if kind == "file" else "linked/one.mp4"
    with pytest.raises(DataError, match=r"machine\.allowed_roots"):
        pin("raw", str(tree), None)
    lock = pin("raw", str(tree), None, allowed_roots=[str(tmp_path / "mnt")])
    assert lock.read(None, path) == b"clip"
    with pytest.raises(DataError, match="leads out of"):
        pin("raw", str(tree), None, allowed_roots=[str(tmp_path / "mnt/clip")])  # not the start of a name


def test_what_an_allowed_root_links_to_is_checked_too(tree, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (mount / "way.out").symlink_to(tmp_path / "secret.txt")
    (tree / "linked").symlink_to(mount)
    with pytest.raises(DataError, match=r"linked/way\.out leads out of .*, to .*secret\.txt"):
        pin("raw", str(tree), None, allowed_roots=[str(mount)])
    (mount / "way.out").unlink()
    (mount / "back").symlink_to(tree)
    with pytest.raises(DataError, match="leads back to a folder that contains it"):
        pin("raw", str(tree), None, allowed_roots=[str(mount)])


def test_links_in_a_circle_or_to_nothing(tree):
    (tree / "a" / "up").symlink_to(tree)
    with pytest.raises(DataError, match=r"the link .*/a/up leads back to a folder that contains it; remove"):
        pin("raw", str(tree), None)
    (tree / "a" / "up").unlink()
    for target in ("nowhere", "self"):
        (tree / "self").symlink_to(target)
        with pytest.raises(DataError, match=r"the link .*/self points to nothing; fix or remove it"):
            pin("raw", str(tree), None)
        (tree / "self").unlink()


def test_what_is_neither_file_nor_folder(tree):
    os.mkfifo(tree / "pipe")
    with pytest.raises(DataError, match=r"/pipe is neither a file nor a folder \(a pipe, socket or device\)"):
        pin("raw", str(tree), None)


def test_names_that_are_not_text(tree):
    (Path(os.fsdecode(os.fsencode(tree) + b"/\xff.txt"))).write_text("")
    with pytest.raises(DataError, match=r"the name b'\\xff\.txt' below .* is not UTF-8; rename it"):
        pin("raw", str(tree), None)


@pytest.mark.parametrize("locked", ["raw", "raw/a", "raw/b.txt"])
def test_what_may_not_be_read_is_one_sentence(tree, locked):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(shutil.copytree(tree, Path(folder, "raw")))
        closed = Path(folder, locked)
        closed.chmod(0)
        me = os.geteuid()
        try:
            if me == 0:  # nothing is closed to root
                os.seteuid(65534)
            with pytest.raises(DataError) as refusal:
                pin("raw", str(root), None)
        finally:
            os.seteuid(me)
            closed.chmod(0o755)
    assert f"source raw: {closed}: Permission denied; fix it and pin again" in str(refusal.value)


def test_a_zip_is_not_a_folder(tree):
    (tree / "mafw.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"set sources\.mafw in params\.yaml to the folder that holds it"):
        pin("mafw", str(tree / "mafw.zip"), None)


def test_a_source_of_nothing_but_skipped_files(tree):
    with pytest.raises(DataError) as refusal:
        pin("dfew", str(tree), None, selection=Selection(skip=(r"\.txt$",)))
    assert "all 3 files below" in str(refusal.value)
    assert "(a/b/c.txt, a/x (1).txt, b.txt, …); check sources.dfew and ingest.readers.dfew" in str(
        refusal.value
    )


def test_a_long_pin_says_how_far_it_is(tree, caplog, monkeypatch):
    monkeypatch.setattr("erv.progress.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "erv"):
        pin("raw", str(tree), None)
    lines = [line.partition(" [")[0] for line in caplog.messages]
    assert lines[0] == "source raw: 0/3 files"
    assert lines[-1] == "source raw: 3/3 files, 0 MB read"
    assert {f"source raw: {done}/3 files, 0 MB read" for done in range(4)} <= set(lines)


def test_giving_up_stops_what_runs(tmp_path):
    progress, left = threads.Progress(), []

    def slow(number):
        if number == 0:
            raise DataError("the first fails")
        try:
            while True:
                progress.read(1)
        except threads.StoppedError:
            left.append(number)
            raise

    with pytest.raises(DataError, match="the first fails"):
        list(threads.in_order(slow, range(50), progress))
    assert set(left) <= set(range(1, 50))


def test_the_reason_for_a_stop_is_reported_not_the_stop():
    """Item 3 fails and stops what comes before it, while its own error is still on the way."""
    progress = threads.Progress()

    def work(number):
        if number == 3:
            progress.stop()
            time.sleep(0.2)
            raise DataError("the third fails") from ValueError("why")
        while True:
            progress.read(1)

    with pytest.raises(DataError, match="the third fails") as refusal:
        list(threads.in_order(work, range(50), progress))
    assert isinstance(refusal.value.__cause__, ValueError)


def test_a_stop_without_a_reason_stays_one():
    progress = threads.Progress()
    progress.stop()
    with pytest.raises(threads.StoppedError):
        list(threads.in_order(progress.read, range(50), progress))


LEAVE = """
import os, signal, sys
from pathlib import Path
from erv.sources.frame_folders import collect, place
from erv.files import temporary_name
cache = Path(sys.argv[1])
incoming = cache / "incoming" / "0123456789abcdef"
incoming.mkdir(parents=True)
temporary_name(incoming / "fedcba9876543210").write_text("arrived")
downloading = temporary_name(incoming / "aaaaaaaaaaaaaaaa")
downloading.mkdir()
temporary_name(downloading / "1.jpg").write_text("half")
member = place(cache, "b" * 64)
member.parent.mkdir()
temporary_name(member).write_text("half")
for name in (f".{'c' * 16}-{'d' * 16}.part", f".{'c' * 16}-{'d' * 16}.lock"):
    (member.parent / name).write_text("goes on")
    (incoming / name).write_text("goes on")
def fill(folder):
    (folder / "1.jpg").write_text("one")
    os.kill(os.getpid(), signal.SIGKILL)
collect(place(cache, "a" * 64), "a" * 64, "clip", fill)
"""


def everything_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_what_a_killed_process_left_in_the_cache_is_removed(tree, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", LEAVE, str(cache)], check=False)
    assert killed.returncode == -signal.SIGKILL
    parts = {path for path in everything_below(cache) if path.endswith((".part", ".lock"))}
    left = set(everything_below(cache)) - parts
    assert len(parts) == 4
    assert len(left) == 4
    # Those of a process that lives, and of another machine, are none of ours.
    mine = files.temporary_name(cache / "bb" / "mine")
    mine.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "another")
        patch.setattr("os.getpid", lambda: 2**22 + 1)  # more than Linux gives
        theirs, old = (files.temporary_name(cache / "bb" / name) for name in ("theirs", "old"))
    for path in (theirs, old):
        path.write_text("")
    os.utime(old, (0, 0))
    whole = cache / "bb" / ("b" * 64)
    others = [whole, cache / "bb" / ".hidden", cache / "elsewhere" / mine.name.replace(str(os.getpid()), "1")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    lock = pin("raw", str(tree), None)
    assert list(fetch_all([_Row(lock.uri_of("b.txt"), lock.find("b.txt").sha256)], lock, None, cache=cache))
    assert everything_below(cache) == sorted(
        parts | {path.relative_to(cache).as_posix() for path in (mine, theirs, *others)}
    )
    assert not list((cache / "incoming" / "0123456789abcdef").glob(".aaaa*"))


def test_the_command_pins_what_params_name(tree, tmp_path, root, monkeypatch):
    import yaml

    params = yaml.safe_load((root / "params.yaml").read_text())
    params["sources"]["base"] = str(tree)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(command, ["pin", "base"], catch_exceptions=False)
    assert run.output == "base: pinned, 3 files, 0.0 MB\n"
    lock = tmp_path / "data" / "sources" / "base.lock.json"
    assert [file.path for file in Lock.load(lock).files] == ["a/b/c.txt", "a/x (1).txt", "b.txt"]
    assert CliRunner().invoke(command, ["pin", "base"]).output == "base: unchanged, 3 files, 0.0 MB\n"
    lock.write_text("{}")
    run = CliRunner().invoke(command, ["pin", "base"], catch_exceptions=False)
    assert "not a lock file ('files'); write it again with `erv data pin`: doing so now" in run.output
    assert "base: pinned, 3 files" in run.output
    (tmp_path / "mount").mkdir()
    (tree / "linked").symlink_to(tmp_path / "mount")
    assert CliRunner().invoke(command, ["pin", "base"]).exception is not None
    params["machine"]["allowed_roots"] = [str(tmp_path / "mount")]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert CliRunner().invoke(command, ["pin", "base"]).output == "base: unchanged, 3 files, 0.0 MB\n"
