"""Whether a pinned source is still there: on disk and in a real SeaweedFS, with zips and frame folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.files import md5_of_file
from erv.lineage.links import Link, LinkChecker
from erv.pinning import pin
from erv.sources import Lock, Selection
from erv.storage.store import Store, open_store
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


def verdict(lock: Lock, environment: Environment, folder: Path) -> Link:
    path = folder / "raw.lock.json"
    lock.save(path)
    return LinkChecker(environment).source("raw.lock.json", md5_of_file(path), path)


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


def test_a_lock_that_is_another_one(tree: Path, stack: Environment, tmp_path: Path) -> None:
    path = tmp_path / "raw.lock.json"
    pin("raw", str(tree), None, selection=FRAMES).save(path)
    found = LinkChecker(stack).source("raw.lock.json", "0" * 32, path)
    assert found.ok is None
    assert "restore it from git" in found.detail
