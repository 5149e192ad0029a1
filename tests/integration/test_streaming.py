"""Shards are streamed from a real S3 server by `datasets`, and clips are read from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from erv.environment import Environment
from erv.errors import StorageError
from erv.extract.extract import extract
from erv.shards import ShardReader
from erv.storage.store import open_store
from tests.support.clips import pinned, settings, write_clips

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_shards_stream_from_s3(stack: Environment, tmp_path: Path) -> None:
    from datasets import load_dataset

    source = tmp_path / "raw"
    write_clips(source, 23)
    for number in range(5, 10):  # the second shard is empty
        (source / f"{number:05d}.mp4").write_bytes(b"not a film")
    rows, lock = pinned(source)
    extract(rows, lock, None, settings(), Path("shards"), Path("q.parquet"), workers=2)
    uri = f"s3://{stack.artifact_bucket}/streaming/shards"
    open_store(stack).mirror_tree(Path("shards"), uri)
    options = {
        "key": stack.s3_access_key,
        "secret": stack.s3_secret_key,
        "client_kwargs": {"endpoint_url": stack.s3_endpoint, "region_name": stack.s3_region},
    }
    stream = load_dataset(
        "parquet",
        data_files=f"{uri}/shard-*.parquet",
        split="train",
        streaming=True,
        storage_options=options,
        cache_dir=str(tmp_path / "cache"),
    )
    reader = ShardReader(Path("shards"))
    seen = []
    for row in stream:
        clip = reader.get(row["clip_id"])
        frames = np.frombuffer(row["frames"], np.uint8).reshape(row["frames_shape"])
        np.testing.assert_array_equal(frames, clip.frames)
        np.testing.assert_array_equal(np.frombuffer(row["audio"], "<i2"), clip.audio)
        assert row["sample_rate"] == 16000
        seen.append(row["clip_id"])
    assert seen == reader.clip_ids
    assert len(seen) == 18


def test_an_object_that_is_lost_is_a_fault_of_the_source(
    stack: Environment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "raw"
    write_clips(source, 60)
    (source / "00057.mp4").write_bytes((source / "00001.mp4").read_bytes() + b"\0" * 9)
    store = open_store(stack)
    uri = f"s3://{stack.artifact_bucket}/lost/raw"
    store.mirror_tree(source, uri)
    rows, lock = pinned(source, store=store, uri=uri)
    store.delete(lock.uri_of("00057.mp4"))
    few = settings(clips_per_shard=2)
    shutil.rmtree(".erv/sources")  # what pinning kept
    with pytest.raises(StorageError, match=r"00057\.mp4"):
        extract(rows, lock, store, few, Path("s"), Path("q.parquet"), workers=2)
    assert not Path("s").exists()
    assert not Path("q.parquet").exists()
    store.mirror_tree(source, uri)
    rows, lock = pinned(source, store=store, uri=uri)
    caplog.set_level("INFO")
    assert extract(rows, lock, store, few, Path("s"), Path("q.parquet"), workers=2).extracted == 60
    assert "of 30 shards kept from an earlier run" in caplog.text
