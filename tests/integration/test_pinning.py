"""Pinning and reading sources in a real SeaweedFS: versions, interruptions, zips, frames, every refusal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import DataError, StorageError
from erv.pinning import pin
from erv.sources import Lock, Selection, fetch_all
from erv.storage.store import Store, open_store
from tests.integration.proxy import Proxy
from tests.support.zips import zip_of

pytestmark = pytest.mark.integration

AWAY = r"http://127.0.0.1:\d+ can't be reached; "

MB = 1 << 20
# What listings, headers and the bytes of a connection that is being cut add.
SLACK = 2 * MB


@pytest.fixture
def store(stack: Environment) -> Store:
    return open_store(stack)


@pytest.fixture
def proxy(stack: Environment) -> Iterator[Proxy]:
    relay = Proxy(str(stack.s3_endpoint))
    yield relay
    relay.close()


@pytest.fixture
def through(stack: Environment, proxy: Proxy) -> Store:
    """The store as it is seen through the proxy; tried once, so that a cut connection ends the attempt."""
    return open_store(replace(stack, s3_endpoint=proxy.endpoint), patient=False)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"s3://erv-raw/pinning/{request.node.name}"


@dataclass
class Row:
    uri: str
    sha256: str


def rows(lock: Lock, *paths: str) -> list[Row]:
    return [Row(lock.uri_of(path), lock.find(path).sha256) for path in paths]


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_was_pinned_is_read_whatever_came_after(store: Store, prefix: str, tmp_path: Path) -> None:
    store.write(b"first", f"{prefix}/a.txt")
    store.write(b"second", f"{prefix}/b.txt")
    lock = pin("raw", prefix, store, cache=tmp_path / "pinned")
    store.write(b"overwritten", f"{prefix}/a.txt")
    store.delete(f"{prefix}/b.txt")
    assert lock.fetch(store, "a.txt", tmp_path / "fresh").read_bytes() == b"first"
    found = fetch_all(rows(lock, "b.txt", "a.txt"), lock, store, cache=tmp_path / "other")
    assert [path.read_bytes() for path in found] == [b"second", b"first"]
    # What was deleted is no longer listed, and what was overwritten is another version.
    again = pin("raw", prefix, store, previous=lock, cache=tmp_path / "pinned")
    assert [file.path for file in again.files] == ["a.txt"]
    assert again.find("a.txt").version_id != lock.find("a.txt").version_id
    store.delete(f"{prefix}/b.txt", lock.find("b.txt").version_id)
    with pytest.raises(StorageError) as refusal:
        lock.fetch(store, "b.txt", tmp_path / "fresh")
    assert str(refusal.value).startswith(
        f"{prefix}/b.txt: version {lock.find('b.txt').version_id} is no longer"
    )
    assert "pin what is there now with `erv data pin`" in str(refusal.value)


def test_pinning_again_reads_only_what_is_new(
    store: Store, through: Store, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for number in range(3):
        store.write(os.urandom(MB), f"{prefix}/{number}")
    lock = pin("raw", prefix, through, cache=cache)
    assert proxy.received > 3 * MB
    store.write(os.urandom(MB), f"{prefix}/1")
    with proxy.counted() as count:
        again = pin("raw", prefix, through, previous=lock, cache=cache)
    assert MB < count[0] < 1.5 * MB
    assert [file.path for file in again.files if file not in lock.files] == ["1"]
    with proxy.counted() as count:
        assert len(list(fetch_all(rows(again, "0", "1", "2"), again, through, cache=cache))) == 3
    assert count == [0]
    lock.fetch(through, "0", cache).write_bytes(b"damaged")
    with proxy.counted() as count:
        assert lock.fetch(through, "0", cache).stat().st_size == MB
    assert count[0] > MB
    assert len(files_below(cache)) == 4


def test_without_versions_the_hash_protects(store: Store, tmp_path: Path) -> None:
    uri = "s3://erv-dvc/pinning/plain"
    store.write(b"first", f"{uri}/a.txt")
    lock = pin("raw", uri, store, cache=tmp_path / "pinned")
    assert lock.find("a.txt").version_id is None
    store.write(b"other", f"{uri}/a.txt")
    with pytest.raises(StorageError, match=r"a\.txt: content has changed, sha256 is .* run `erv data pin`"):
        lock.fetch(store, "a.txt", tmp_path / "fresh")
    assert files_below(tmp_path / "fresh") == []


@pytest.mark.parametrize("bucket", ["erv-raw", "erv-dvc"])
def test_a_broken_connection_is_one_sentence_and_the_next_pin_reads_the_rest(
    store: Store, through: Store, proxy: Proxy, bucket: str, tmp_path: Path
) -> None:
    """With versions and without."""
    uri, cache, journal = f"s3://{bucket}/pinning/broken", tmp_path / "cache", tmp_path / "raw.jsonl"
    clip = os.urandom(24 * MB)
    content = zip_of({"clips/1.mp4": clip}, kind=0)
    (tmp_path / "clips.zip").write_bytes(content)
    store.upload(tmp_path / "clips.zip", f"{uri}/clips.zip")
    for number in range(8):
        store.write(os.urandom(MB), f"{uri}/small/{number}")
    proxy.cut_after = 20 * MB
    with pytest.raises(StorageError, match=r"the connection to .* broke after|can't be reached") as refusal:
        pin("raw", uri, through, cache=cache, journal=journal)
    assert "\n" not in str(refusal.value)
    proxy.cut_after = None
    first = proxy.received
    assert first > 16 * MB
    with proxy.counted() as count:
        lock = pin("raw", uri, through, cache=cache, journal=journal)
    # The zip resumes where it stopped; small objects in progress start over.
    assert count[0] < 32 * MB - first + 8 * MB + SLACK
    assert lock.fetch(store, "clips/1.mp4", tmp_path / "fresh").read_bytes() == clip
    assert not [name for name in files_below(cache) if name.endswith((".part", ".lock"))]


def test_the_sentence_of_a_broken_connection(
    store: Store, through: Store, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    data = os.urandom(24 * MB)
    (tmp_path / "big").write_bytes(data)
    store.upload(tmp_path / "big", f"{prefix}/big")
    store.write(data[: 4 * MB], f"{prefix}/small")
    target = tmp_path / "copies" / "big"
    proxy.cut_after = 10 * MB
    with pytest.raises(StorageError) as refusal:
        through.download(f"{prefix}/big", target)
    message = str(refusal.value)
    # The last attempt was cut, or got no answer any more.
    assert re.match(
        rf"{prefix}/big: ({AWAY}|.* broke after .* of 25.2 MB; .* to resume from there$)", message
    )
    (part,) = [path for path in target.parent.iterdir() if path.suffix == ".part"]
    kept = part.stat().st_size
    assert 5 * MB < kept < 10 * MB
    proxy.cut_after = None
    with proxy.counted() as count:
        assert through.download(f"{prefix}/big", target).read_bytes() == data
    assert count[0] < 24 * MB - kept + MB
    assert files_below(target.parent) == ["big"]
    # A part with other bytes than the object is dropped, and the whole object is fetched and compared.
    target.unlink()
    part.write_bytes(bytes(9 * MB))
    with pytest.raises(StorageError, match="content has changed"):
        through.download(f"{prefix}/big", target, sha256="0" * 64)
    assert not part.exists()
    # One that is longer than the object is dropped.
    part.write_bytes(bytes(30 * MB))
    assert through.download(f"{prefix}/big", target).read_bytes() == data
    # Small objects leave nothing behind.
    proxy.cut_after = proxy.received + 2 * MB
    with pytest.raises(StorageError, match=rf"/small: ({AWAY}|the connection to .* broke)"):
        through.download(f"{prefix}/small", tmp_path / "small" / "copy", size=4 * MB)
    assert files_below(tmp_path / "small") == []


PIN = """
import sys
from pathlib import Path
from erv.pinning import pin
from erv.environment import load_environment
from erv.storage.store import open_store
uri, folder = sys.argv[1], Path(sys.argv[2])
pin("raw", uri, open_store(load_environment(folder)), cache=folder / "cache", journal=folder / "raw.jsonl")
"""


def test_a_pin_that_is_killed_goes_on(
    stack: Environment, store: Store, through: Store, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(os.urandom(32 * MB))
    store.upload(tmp_path / "big", f"{prefix}/big")
    for number in range(40):
        store.write(os.urandom(MB // 2), f"{prefix}/small/{number:02d}")
    proxy.delay = 0.004
    environment = {**os.environ, **replace(stack, s3_endpoint=proxy.endpoint).variables()}
    child = subprocess.Popen([sys.executable, "-c", PIN, prefix, str(tmp_path)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while proxy.received < 30 * MB and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert child.poll() is None
        with pytest.raises(DataError, match=r"another `erv data pin` of this source is running; wait for it"):
            pin("raw", prefix, through, cache=tmp_path / "cache", journal=tmp_path / "raw.jsonl")
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    proxy.delay = 0.0
    time.sleep(0.2)
    first = proxy.received
    with proxy.counted() as count:
        lock = pin("raw", prefix, through, cache=tmp_path / "cache", journal=tmp_path / "raw.jsonl")
    assert first >= 30 * MB
    # Of what had arrived, only the small objects that were under way are read again.
    assert count[0] < 52 * MB - first + 8 * MB // 2 + SLACK
    assert lock == pin("raw", prefix, store, cache=tmp_path / "other")
    assert files_below(tmp_path / "cache") == sorted(file.sha256 for file in lock.files)


def test_a_journal_of_another_place_or_cut_short_is_no_use(store: Store, prefix: str, tmp_path: Path) -> None:
    journal = tmp_path / "raw.jsonl"
    for name in "ab":
        store.write(name.encode(), f"{prefix}/{name}")
    lock = pin("raw", prefix, store, cache=tmp_path / "cache", journal=journal)
    lines = journal.read_text().splitlines()
    assert len(lines) == 3
    journal.write_text("\n".join(lines)[:-20])
    assert pin("raw", prefix, store, cache=tmp_path / "cache", journal=journal) == lock
    journal.write_text(
        "\n".join(lines).replace(prefix, "s3://elsewhere").replace(lock.files[0].sha256, "0" * 64)
    )
    assert pin("raw", prefix, store, cache=tmp_path / "cache", journal=journal) == lock


def test_zips_and_frames_are_the_same_in_a_bucket_and_in_a_folder(
    store: Store, through: Store, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    frames = {
        f"frames/{clip:05d}/{number}.jpg": b"%d %d" % (clip, number) for clip in (1, 2) for number in (1, 2)
    }
    files = {
        **frames,
        "data/clips.zip": zip_of({"clips/1.mp4": b"one", "clips/2.mp4": b"two", "__MACOSX/._1": b"x"}),
        "data/frames.zip": zip_of({f"zipped_{name}": content for name, content in frames.items()}),
        "list.csv": b"list",
    }
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        store.write(content, f"{prefix}/{name}")
    selection = Selection(frames=r"frames/\d{5}$", aggregate=True)
    local = pin("mafw", str(tree), None, selection=selection)
    lock = pin("mafw", prefix, store, selection=selection, cache=tmp_path / "pinned")
    assert [(file.path, file.sha256, file.frames) for file in lock.files] == [
        (file.path, file.sha256, file.frames) for file in local.files
    ]
    assert lock.skipped == local.skipped == {"files": 1, "bytes": 1}
    wanted = ["data/clips/2.mp4", "frames/00002", "data/zipped_frames/00001", "data/clips/1.mp4", "list.csv"]
    assert lock.uri_of("frames/00002") == f"{prefix}/frames/00002/"
    cache = tmp_path / "fresh"
    found = list(fetch_all(rows(lock, *wanted), lock, store, cache=cache))
    assert [path.read_bytes() for path in (found[0], found[3], found[4])] == [b"two", b"one", b"list"]
    for folder, clip in ((found[1], 2), (found[2], 1)):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            f"{number}.jpg": b"%d %d" % (clip, number) for number in (1, 2)
        }
    # Nothing is read twice, neither by the stages nor by another pin.
    with proxy.counted() as count:
        assert list(fetch_all(rows(lock, *wanted), lock, through, cache=cache)) == found
    assert count == [0]
    assert pin("mafw", prefix, store, selection=selection, previous=lock, cache=tmp_path / "pinned") == lock
    # A damaged copy of the zip is noticed and read again.
    archive = cache / lock.find("data/clips.zip").sha256[:2] / lock.find("data/clips.zip").sha256
    for damage in (b"no zip at all", files["data/clips.zip"].replace(b"two", b"owt")):
        archive.write_bytes(damage)
        found[0].unlink()
        assert lock.fetch(store, "data/clips/2.mp4", cache).read_bytes() == b"two"
    # An image that was overwritten is not what was pinned.
    store.write(b"changed", f"{prefix}/frames/00002/1.jpg")
    with pytest.raises(
        DataError, match=r"frames/00002/: content has changed since it was pinned \(its 2 images"
    ):
        lock.fetch(store, "frames/00002", tmp_path / "later")
    assert files_below(tmp_path / "later") == []
    again = pin("mafw", prefix, store, selection=selection, previous=lock, cache=tmp_path / "pinned")
    assert [file.path for file in again.files if file not in lock.files] == ["frames/00002"]


def test_refusals_of_the_server(
    stack: Environment, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StorageError, match=r"^s3://erv-none: bucket 'erv-none' does not exist at http"):
        pin("mafw", "s3://erv-none/mafw", store, cache=tmp_path)
    with pytest.raises(
        DataError,
        match=r"^source mafw: there is nothing below s3://erv-raw/pinning/empty; correct sources\.mafw in"
        r" params\.yaml, or put the tree there$",
    ):
        pin("mafw", "s3://erv-raw/pinning/empty", store, cache=tmp_path)
    with pytest.raises(
        DataError, match=r"put the tree there \(`erv sample-data --upload`: the sample corpus\)$"
    ):
        pin("empty", "s3://erv-raw/empty", store, cache=tmp_path)
    stranger = open_store(replace(stack, s3_secret_key="0123456789abcdef"))
    with pytest.raises(
        StorageError, match=r"refuses the key \(SignatureDoesNotMatch\); check ERV_S3_ACCESS_KEY"
    ):
        pin("mafw", "s3://erv-raw/pinning", stranger, cache=tmp_path)
    stranger = open_store(replace(stack, s3_access_key="0123456789abcdef"))
    with pytest.raises(StorageError, match=r"refuses the key \(InvalidAccessKeyId\)"):
        pin("mafw", "s3://erv-raw/pinning", stranger, cache=tmp_path)
    assert "may not list versions" not in caplog.text
    expired = open_store(replace(stack, s3_session_token="of yesterday"))
    with pytest.raises(
        StorageError, match=r"the session token .* has expired; renew it|refuses the key \(.+\); check"
    ):
        pin("mafw", "s3://erv-raw/pinning", expired, cache=tmp_path)
    nobody = open_store(replace(stack, s3_endpoint="http://127.0.0.1:9"), patient=False)
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9 can't be reached; run `erv stack up`"):
        pin("mafw", "s3://erv-raw/pinning", nobody, cache=tmp_path)


def test_a_broken_zip_in_a_bucket_is_named(store: Store, prefix: str, tmp_path: Path) -> None:
    store.write(zip_of({"clips/1.mp4": b"clip"})[:-10], f"{prefix}/data/clips.zip")
    with pytest.raises(DataError) as refusal:
        pin("mafw", prefix, store, cache=tmp_path)
    assert str(refusal.value).startswith(f"{prefix}/data/clips.zip: not a readable zip")
