import json
import shutil
from pathlib import Path

import pytest

from erv.data.sources import Lock, SourceFile, fetch_all, pin
from erv.errors import DataError


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
    assert [path.read_text() for path in fetch_all(rows, None)] == [str(index) for index in range(80)]


def test_what_cannot_be_pinned_says_why(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing lies below"):
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


class _Shelf:
    """Objects of a versioned bucket kept in a folder; counts what is read."""

    def __init__(self, folder: Path):
        self.folder, self.reads = folder, []

    def list(self, uri):
        assert uri == "s3://bucket/raw/"
        return [
            _Object(p.relative_to(self.folder).as_posix(), p)
            for p in sorted(self.folder.rglob("*"))
            if p.is_file()
        ]

    def download(self, uri, path, version_id=None, sha256=None):
        self.reads.append(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / uri.removeprefix("s3://bucket/raw/"), path)
        return path


class _Object:
    def __init__(self, name, path):
        self.uri, self.size, self.version_id = (
            f"s3://bucket/raw/{name}",
            path.stat().st_size,
            path.read_text(),
        )


def test_pinning_again_reads_only_what_is_new_and_fetching_reads_nothing_twice(tree, tmp_path):
    shelf, cache = _Shelf(tree), tmp_path / "cache"
    lock = pin("raw", "s3://bucket/raw", shelf, cache=cache)
    assert len(shelf.reads) == 3
    assert lock.find("b.txt") == SourceFile("b.txt", 3, lock.find("b.txt").sha256, "two")
    assert lock.fetch(shelf, "b.txt", cache).read_text() == "two"
    assert len(shelf.reads) == 3
    (tree / "b.txt").write_text("new")
    again = pin("raw", "s3://bucket/raw", shelf, previous=lock, cache=cache)
    assert shelf.reads[3:] == ["s3://bucket/raw/b.txt"]
    assert [file.path for file in again.files if file not in lock.files] == ["b.txt"]
    assert not list(cache.rglob("new-*"))


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


def test_a_damaged_download_is_read_again(tree, tmp_path):
    shelf, cache = _Shelf(tree), tmp_path / "cache"
    lock = pin("raw", "s3://bucket/raw", shelf, cache=cache)
    kept = lock.fetch(shelf, "b.txt", cache)
    kept.write_text("bad")
    assert lock.fetch(shelf, "b.txt", cache).read_text() == "two"
    assert shelf.reads[3:] == ["s3://bucket/raw/b.txt"]
