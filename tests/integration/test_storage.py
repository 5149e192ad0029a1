"""The object store against a real SeaweedFS: versions, trees, hashes, and every error in one sentence."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import StorageError
from erv.storage.store import ObjectInfo, Store, open_store

pytestmark = pytest.mark.integration


@pytest.fixture
def store(stack: Environment) -> Store:
    return open_store(stack)


def test_raw_bucket_keeps_versions(store: Store) -> None:
    uri = "s3://erv-raw/versions/clip.mp4"
    store.write(b"first", uri)
    first = store.list("s3://erv-raw/versions")[0].version_id
    store.write(b"second, longer", uri)
    (newest,) = store.list("s3://erv-raw/versions")
    assert first is not None
    assert newest == ObjectInfo(uri, "versions/clip.mp4", 14, newest.version_id, newest.etag)
    assert newest.version_id != first
    assert store.read(uri) == b"second, longer"
    assert store.read(uri, first) == b"first"
    assert store.exists(uri, first)
    store.delete(uri)
    assert not store.exists(uri)
    assert store.list("s3://erv-raw/versions") == []
    assert store.read(uri, first) == b"first"


def test_trees_keep_their_shape_and_listings_are_sorted(store: Store, tmp_path: Path) -> None:
    names = ["b/2.txt", "a.txt", "b/10.txt", "Train & Test Set/ä.txt"]
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    assert store.mirror_tree(tmp_path / "tree", "s3://erv-dvc/trees/one")["stored"] == 4
    assert store.mirror_tree(tmp_path / "tree", "s3://erv-dvc/trees/one")["kept"] == 4
    store.write(b"a sibling with the same start of its name", "s3://erv-dvc/trees/one-more.txt")
    found = store.list("s3://erv-dvc/trees/one")
    assert [item.key.removeprefix("trees/one/") for item in found] == sorted(names)
    assert {item.version_id for item in found} == {None}
    assert all(store.read(item.uri).decode() == item.key.removeprefix("trees/one/") for item in found)


@pytest.mark.slow
def test_listing_goes_beyond_a_page(store: Store, tmp_path: Path) -> None:
    for number in range(1005):
        (tmp_path / f"{number:04}").write_bytes(b"x")
    store.mirror_tree(tmp_path, "s3://erv-raw/pages")
    assert [item.key for item in store.list("s3://erv-raw/pages")] == [f"pages/{n:04}" for n in range(1005)]


def test_large_file_travels_in_parts_and_is_verified(store: Store, tmp_path: Path) -> None:
    data = hashlib.shake_256(b"large").digest(20_000_000)
    (tmp_path / "large").write_bytes(data)
    store.upload(tmp_path / "large", "s3://erv-dvc/large")
    digest = hashlib.sha256(data).hexdigest()
    copy = store.download("s3://erv-dvc/large", tmp_path / "new" / "copy", sha256=digest)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest


def test_changed_content_leaves_no_file(store: Store, tmp_path: Path) -> None:
    store.write(b"changed", "s3://erv-dvc/changed")
    with pytest.raises(
        StorageError, match=r"content has changed, sha256 is .*expected 0{64}; run `erv data pin`"
    ):
        store.download("s3://erv-dvc/changed", tmp_path / "copy", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_missing_object_and_bucket(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"^s3://erv-raw/none: no such object at http://127.0.0.1:\d+; upload"
    ):
        store.read("s3://erv-raw/none")
    with pytest.raises(StorageError, match=r"^s3://erv-none/x: bucket 'erv-none' does not exist"):
        store.download("s3://erv-none/x", tmp_path / "x")
    with pytest.raises(StorageError, match="bucket 'erv-none' does not exist"):
        store.write(b"", "s3://erv-none/x")
    (tmp_path / "file").write_bytes(b"data")
    with pytest.raises(StorageError, match="bucket 'erv-none' does not exist"):
        store.upload(tmp_path / "file", "s3://erv-none/x")
    assert not store.exists("s3://erv-none/x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("field", ["s3_access_key", "s3_secret_key"])
def test_wrong_key(stack: Environment, field: str) -> None:
    stranger = open_store(replace(stack, **{field: "0123456789abcdef"}))
    for ask in (
        lambda: stranger.read("s3://erv-raw/x"),
        lambda: stranger.write(b"", "s3://erv-raw/x"),
        lambda: stranger.list("s3://erv-raw/x"),
        lambda: stranger.exists("s3://erv-raw/x"),
        lambda: stranger.ensure_bucket("erv-raw"),
    ):
        with pytest.raises(StorageError, match=r"refuses the key \(.+\); check ERV_S3_ACCESS_KEY") as caught:
            ask()
        assert "0123456789abcdef" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_unreachable_endpoint(stack: Environment) -> None:
    nobody = open_store(replace(stack, s3_endpoint="http://127.0.0.1:9"), patient=False)
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9 can't be reached; run `erv stack up`"):
        nobody.read("s3://erv-raw/x")


def test_user_profile_is_not_asked(
    stack: Environment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:9\nregion = nowhere-1\n")
    monkeypatch.setenv("AWS_PROFILE", "nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the user")
    store = open_store(stack)
    store.write(b"mine", "s3://erv-dvc/isolated")
    assert store.read("s3://erv-dvc/isolated") == b"mine"
