"""Whether a pinned source is still there: on disk and in a real SeaweedFS, with zips and frame folders."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.files import md5_of_file
from erv.lineage.links import Link, LinkChecker
from erv.pinning import pin
from erv.sources import Lock, Selection
from erv.storage.store import Store, open_store
from tests.integration.proxy import Proxy
from tests.support.zips import zip_of

pytestmark = pytest.mark.integration

FRAMES = Selection(frames=r"frames/\d{5}$", aggregate=True)
FILES = {
    "list.txt": b"1 anger",
    "clips.zip": zip_of({"clips/1.mp4": b"one", "clips/2.mp4": b"two"}),
    "frames/00001/1.jpg": b"first",
    "frames/00001/2.jpg": b"second",
}
PARTS = {"list.txt", "clips.zip", "clips/1.mp4", "clips/2.mp4", "frames/00001"}


def verdict(lock: Lock, environment: Environment, folder: Path, deep: bool = False) -> Link:
    path = folder / "raw.lock.json"
    lock.save(path)
    return LinkChecker(environment, deep).source("raw.lock.json", md5_of_file(path), path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def store(stack: Environment) -> Store:
    return open_store(stack)


@pytest.fixture
def prefix(request: pytest.FixtureRequest, store: Store) -> str:
    uri = f"s3://erv-raw/verification/{request.node.name}"
    for name, content in FILES.items():
        store.write(content, f"{uri}/{name}")
    return uri


@pytest.mark.parametrize(
    ("gone", "missing", "count"),
    [("list.txt", "list.txt", 1), ("clips.zip", "clips.zip", 3), ("frames", "frames/00001", 1)],
)
def test_what_is_gone_from_a_folder(
    tree: Path, stack: Environment, tmp_path: Path, gone: str, missing: str, count: int
) -> None:
    lock = pin("raw", str(tree), None, selection=FRAMES)
    assert {file.path for file in lock.files} == PARTS
    whole = verdict(lock, stack, tmp_path)
    assert (whole.ok, whole.detail) == (True, f"5 files of {lock.uri} present")
    shutil.rmtree(tree / gone) if (tree / gone).is_dir() else (tree / gone).unlink()
    broken = verdict(lock, stack, tmp_path)
    assert (broken.ok, broken.detail) == (False, f"{count} of 5 files of {lock.uri}: {missing}")


def test_a_file_that_grew(tree: Path, stack: Environment, tmp_path: Path) -> None:
    lock = pin("raw", str(tree), None, selection=FRAMES)
    (tree / "list.txt").write_bytes(b"1 anger, 2 anger")
    assert verdict(lock, stack, tmp_path).detail == f"1 of 5 files of {lock.uri}: list.txt"


def test_pinned_versions_outlive_what_came_after(
    prefix: str, store: Store, stack: Environment, tmp_path: Path
) -> None:
    lock = pin("raw", prefix, store, selection=FRAMES, cache=tmp_path / "cache")
    assert {file.path for file in lock.files} == PARTS
    store.write(b"2 anger", f"{prefix}/list.txt")
    found = verdict(lock, stack, tmp_path)
    assert (found.ok, found.detail) == (True, f"5 files of {lock.uri} present in their pinned versions")
    store.delete(f"{prefix}/list.txt", lock.find("list.txt").version_id)
    found = verdict(lock, stack, tmp_path)
    assert (found.ok, found.detail) == (False, f"1 of 5 files of {lock.uri}: list.txt")


def test_a_folder_of_frames_that_lost_one(
    prefix: str, store: Store, stack: Environment, tmp_path: Path
) -> None:
    lock = pin("raw", prefix, store, selection=FRAMES, cache=tmp_path / "cache")
    store.delete(f"{prefix}/frames/00001/2.jpg")
    assert verdict(lock, stack, tmp_path).detail == f"1 of 5 files of {lock.uri}: frames/00001"


# Other content of the same size, which only reading finds.
SWAPPED = {
    "list.txt": ("list.txt", b"2 anger"),
    "clips.zip": ("clips.zip", zip_of({"clips/1.mp4": b"one", "clips/2.mp4": b"2nd"})),
    "frames/00001": ("frames/00001/2.jpg", b"forged"),
}


@pytest.mark.parametrize("changed", SWAPPED)
def test_content_that_changed_in_a_folder_is_found_when_it_is_read(
    tree: Path, stack: Environment, tmp_path: Path, changed: str
) -> None:
    lock = pin("raw", str(tree), None, selection=FRAMES)
    whole = verdict(lock, stack, tmp_path, deep=True)
    assert (whole.ok, whole.detail) == (True, f"5 files of {lock.uri} read, hashes equal")
    name, content = SWAPPED[changed]
    assert len(content) == len(FILES[name])
    (tree / name).write_bytes(content)
    assert verdict(lock, stack, tmp_path).ok is True
    broken = verdict(lock, stack, tmp_path, deep=True)
    assert broken.ok is False
    assert broken.detail.startswith(f"1 of 5 files of {lock.uri}: {changed} (sha256 ")


@pytest.mark.parametrize("changed", SWAPPED)
def test_content_that_changed_in_a_bucket_without_versions_is_found_when_it_is_read(
    store: Store, stack: Environment, tmp_path: Path, changed: str
) -> None:
    store.ensure_bucket("verification-plain")
    uri = f"s3://verification-plain/{changed.replace('/', '-')}"
    for name, content in FILES.items():
        store.write(content, f"{uri}/{name}")
    lock = pin("raw", uri, store, selection=FRAMES, cache=tmp_path / "cache")
    whole = verdict(lock, stack, tmp_path, deep=True)
    assert (whole.ok, whole.detail) == (True, f"5 files of {uri} read, hashes equal")
    name, content = SWAPPED[changed]
    store.write(content, f"{uri}/{name}")
    assert verdict(lock, stack, tmp_path).ok is True
    broken = verdict(lock, stack, tmp_path, deep=True)
    assert broken.ok is False
    assert broken.detail.startswith(f"1 of 5 files of {uri}: {changed} (sha256 ")


def test_pinned_versions_are_read_when_newer_ones_exist(
    prefix: str, store: Store, stack: Environment, tmp_path: Path
) -> None:
    lock = pin("raw", prefix, store, selection=FRAMES, cache=tmp_path / "cache")
    store.write(b"2 anger", f"{prefix}/list.txt")
    found = verdict(lock, stack, tmp_path, deep=True)
    expected = f"5 files of {lock.uri} read in their pinned versions, hashes equal"
    assert (found.ok, found.detail) == (True, expected)


def test_every_missing_and_changed_file_counts_and_the_first_are_named(
    stack: Environment, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    for number in range(6):
        (root / f"{number}.mp4").write_bytes(b"clip %d" % number)
    lock = pin("raw", str(root), None)
    (root / "4.mp4").unlink()
    for number in range(4):
        (root / f"{number}.mp4").write_bytes(b"CLIP %d" % number)
    detail = verdict(lock, stack, tmp_path, deep=True).detail
    assert detail.startswith(f"5 of 6 files of {root}: 0.mp4 (sha256 ")
    assert "2.mp4 (sha256 " in detail
    assert " and 2 more; " in detail


def test_a_source_that_can_not_be_read_is_not_called_whole(
    tree: Path, stack: Environment, tmp_path: Path
) -> None:
    lock = pin("raw", str(tree), None, selection=FRAMES)
    frame = tree / "frames/00001/2.jpg"
    frame.unlink()
    frame.symlink_to("/proc/self/mem")  # opens, but reading its first byte is an error
    found = verdict(lock, stack, tmp_path, deep=True)
    assert found.ok is None
    assert found.detail.startswith(f"not every file of {lock.uri} was read: ")


@pytest.mark.slow
def test_an_outage_while_files_are_read_is_no_change_of_theirs(
    prefix: str, store: Store, stack: Environment, tmp_path: Path
) -> None:
    store.write(bytes(12 << 20), f"{prefix}/large.mp4")
    lock = pin("raw", prefix, store, selection=FRAMES, cache=tmp_path / "cache")
    proxy = Proxy(str(stack.s3_endpoint))
    try:
        behind = replace(stack, s3_endpoint=proxy.endpoint)
        proxy.cut_after = 6 << 20
        found = verdict(lock, behind, tmp_path, deep=True)
        proxy.cut_after = None
        again = verdict(lock, behind, tmp_path, deep=True)
    finally:
        proxy.close()
    assert found.ok is None
    assert found.detail.startswith(f"not every file of {prefix} was read: {prefix}/")
    assert again.ok is True


def test_a_lock_that_is_another_one(tree: Path, stack: Environment, tmp_path: Path) -> None:
    path = tmp_path / "raw.lock.json"
    pin("raw", str(tree), None, selection=FRAMES).save(path)
    found = LinkChecker(stack).source("raw.lock.json", "0" * 32, path)
    assert found.ok is None
    assert "restore it from git" in found.detail
