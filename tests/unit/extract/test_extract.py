import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from erv.errors import DataError
from erv.extract.chunks import _DECIDING, extraction_key, plan
from erv.extract.extract import extract, quarantine_reasons
from erv.extract.kept_shards import ROOT, one_at_a_time
from erv.sample.clips import encode
from erv.settings import ExtractSettings
from erv.shards import ShardReader
from tests.support.clips import movie, pinned, same_files, settings, write_clips
from tests.support.paths import ROOT as REPOSITORY


@pytest.fixture(autouse=True)
def _workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def source(tmp_path):
    """Twelve clips: three shards."""
    write_clips(tmp_path / "raw", 12)
    return tmp_path / "raw"


def run(source, out="s", excluded=(), state=ROOT, workers=2, **changes):
    rows, lock = pinned(source)
    return extract(
        rows,
        lock,
        None,
        settings(**changes),
        Path(out),
        Path(f"{out}.parquet"),
        workers=workers,
        excluded=excluded,
        state_root=Path(state),
    )


def quarantine(out="s"):
    return pq.read_table(f"{out}.parquet").to_pylist()


def test_shards_do_not_depend_on_the_number_of_workers(source):
    for workers in (1, 3):
        result = run(source, f"s{workers}", state=f"state{workers}", workers=workers)
        assert (result.clips, result.extracted, result.quarantined) == (12, 12, 0)
    assert same_files(Path("s1"), Path("s3"))
    assert len(list(Path("s1").iterdir())) == 3
    reader = ShardReader(Path("s1"))
    assert reader.clip_ids == [f"{number:05d}" for number in range(12)]
    clip = reader.get("00004")
    assert clip.frames.shape == (8, 64, 64, 3)
    assert clip.audio.std() > 100
    assert quarantine("s1") == []


def test_every_clip_is_extracted_or_quarantined_with_a_reason(source):
    (source / "00002.mp4").write_bytes(b"not a film")
    (source / "00005.mp4").write_bytes(encode(movie(), None))
    excluded = [{"clip_id": "00004x", "reason": "no explanation: empty", "listed_in": "a.csv:3"}]
    result = run(source, excluded=excluded)
    assert (result.clips, result.extracted, result.quarantined, result.excluded) == (12, 10, 2, 1)
    first, second, third = quarantine()
    assert (first["clip_id"], first["stage"], first["dataset"]) == ("00002", "extract", "mafw")
    assert first["reason"].startswith("container can't be read")
    assert len(first["sha256"]) == 64
    assert second == {
        "clip_id": "00004x",
        "dataset": "mafw",
        "stage": "ingest",
        "reason": "no explanation: empty",
        "sha256": None,
    }
    assert (third["clip_id"], third["reason"]) == ("00005", "no sound")
    reader = ShardReader(Path("s"))
    assert {"00002", "00005"}.isdisjoint(reader.clip_ids)
    assert quarantine_reasons(Path("s.parquet")) == [
        ("extract", "container can't be read"),
        ("ingest", "no explanation"),
        ("extract", "no sound"),
    ]


def test_a_shard_depends_on_its_own_rows_alone(source):
    run(source, "whole")
    (source / "00001.mp4").write_bytes(b"not a film")
    for number in range(5, 10):
        (source / f"{number:05d}.mp4").write_bytes(b"not a film")
    run(source, "damaged")
    names = [f"shard-0000{number}.parquet" for number in range(3)]
    rows = [pq.ParquetFile(f"damaged/{name}").metadata.num_rows for name in names]
    assert rows == [4, 0, 2]  # a shard without clips keeps its number
    assert Path("whole", names[2]).read_bytes() == Path("damaged", names[2]).read_bytes()
    assert len(ShardReader(Path("damaged"))) == 6


def test_missing_sound_can_be_marked_or_refused(source):
    (source / "00000.mp4").write_bytes(encode(movie(), None))
    run(source, missing_audio="mark")
    reader = ShardReader(Path("s"))
    assert reader.get("00000").has_audio is False
    assert reader.get("00000").audio.size == 0
    assert reader.silent == {"00000"}
    with pytest.raises(DataError, match="'00000' has no sound"):
        run(source, "t", missing_audio="fail")
    assert not Path("t").exists()
    assert not Path("t.parquet").exists()


def test_frame_folders_without_sound_are_reported_at_once(source):
    rows, lock = pinned(source)
    rows = [dataclasses.replace(row, media="frames") for row in rows]
    with pytest.raises(DataError, match=r"all 12 clips are frame folders.*missing_audio.* set it to mark"):
        extract(rows, lock, None, settings(), Path("s"), Path("q"), workers=2)


def test_too_many_in_quarantine_fail_the_stage_and_keep_what_is_done(source, caplog):
    for number in range(3):
        (source / f"{number:05d}.mp4").write_bytes(b"x")
    message = r"3 of 12 clips went into quarantine, of the first 5, more than .*=0\.2 .*00000: container"
    with pytest.raises(DataError, match=message):
        run(source, max_quarantine_share=0.2)
    assert not Path("s").exists()
    caplog.set_level("INFO")
    assert run(source, max_quarantine_share=0.3).quarantined == 3
    assert "extract mafw: 1 of 3 shards kept from an earlier run" in caplog.text


def test_rows_and_lock_must_belong_together(source):
    rows, lock = pinned(source)
    rows[3] = dataclasses.replace(rows[3], sha256="0" * 64)
    with pytest.raises(DataError, match="the manifest does not match the lock"):
        extract(rows, lock, None, settings(), Path("s"), Path("q"), workers=2)


def test_a_source_that_cannot_be_read_ends_the_stage_and_keeps_what_is_done(source, caplog):
    write_clips(source, 40)
    rows, lock = pinned(source)
    content = (source / "00038.mp4").read_bytes()
    (source / "00038.mp4").unlink()
    few = settings(clips_per_shard=2)
    with pytest.raises(DataError, match=r"00038.mp4: file not found; restore it"):
        extract(rows, lock, None, few, Path("s"), Path("s.parquet"), workers=2)
    assert not Path("s").exists()
    assert not Path("s.parquet").exists()
    (source / "00038.mp4").write_bytes(content)
    caplog.set_level("INFO")
    assert extract(rows, lock, None, few, Path("s"), Path("s.parquet"), workers=2).extracted == 40
    assert "of 20 shards kept from an earlier run" in caplog.text


def interrupted(source, after):
    """An extraction in a process of its own, killed as soon as a shard is finished."""
    script = (
        "import sys; from pathlib import Path; from tests.unit.extract.test_extract import run;"
        f"run(Path({str(source)!r}), clips_per_shard=2, workers=1)"
    )
    root = REPOSITORY
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)})
    deadline = time.monotonic() + 120
    while len(list(Path(".erv/extract").rglob("*.json"))) < after and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path, caplog):
    source = tmp_path / "raw"
    write_clips(source, 60)
    (source / "00001.mp4").write_bytes(b"not a film")
    interrupted(source, 2)
    assert not Path("s").exists()
    records = sorted(Path(".erv/extract/mafw").rglob("*.json"))
    assert 2 <= len(records) < 30
    times = {path.with_suffix(".parquet"): path.with_suffix(".parquet").stat().st_ino for path in records}
    damaged = records[0].with_suffix(".parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    caplog.set_level("INFO")
    result = run(source, clips_per_shard=2)
    assert f"{len(records) - 1} of 30 shards kept from an earlier run" in caplog.text
    assert "kept shard 0 is damaged, rewriting it" in caplog.text
    assert (result.clips, result.extracted, result.quarantined) == (60, 59, 1)
    for path, inode in times.items():
        if path != damaged:  # linked, not written again
            assert Path("s", path.name).stat().st_ino == inode
    run(source, "t", state="fresh", clips_per_shard=2)
    assert same_files(Path("s"), Path("t"))
    assert Path("s.parquet").read_bytes() == Path("t.parquet").read_bytes()


def test_what_another_run_left_is_removed(source, caplog):
    stale = Path(".erv/extract/mafw/0123")
    stale.mkdir(parents=True)
    (stale / "shard-00000.parquet").write_bytes(b"old")
    other = Path(".erv/extract/dfew/0123")
    other.mkdir(parents=True)
    caplog.set_level("INFO")
    run(source)
    assert "extract mafw: removed the shards kept from runs with other clips, settings" in caplog.text
    assert not stale.exists()
    assert other.exists()


def test_the_key_is_what_decides_the_shards(source):
    rows, _ = pinned(source)
    key = extraction_key(rows, settings())
    indifferent = {"max_quarantine_share": 0.9}
    assert key == extraction_key(rows, settings(**indifferent))
    decisive = {
        "frames": 4,
        "size": 32,
        "geometry": "pad",
        "resize": "uint8",
        "sample_rate": 8000,
        "short_folders": "black",
        "missing_audio": "mark",
        "clip_timeout_seconds": 7,
        "clip_memory_mb": 900,
        "clips_per_shard": 4,
    }
    assert set(_DECIDING) == set(decisive) == set(ExtractSettings.model_fields) - set(indifferent)
    keys = {extraction_key(rows, settings(**{name: value})) for name, value in decisive.items()}
    assert len(keys | {key}) == len(decisive) + 1
    assert key != extraction_key(rows[1:], settings())


@pytest.mark.slow
def test_the_faster_filter_runs_in_confined_workers_and_differs_by_at_most_one(source, tmp_path):
    rows, lock = pinned(source)
    frames = {}
    for resize in ("pillow", "uint8"):
        shards, quarantine = tmp_path / resize, tmp_path / f"{resize}.parquet"
        changes = settings(resize=resize)
        extract(rows, lock, None, changes, shards, quarantine, workers=1, state_root=tmp_path / "state")
        frames[resize] = np.stack([clip.frames for clip in ShardReader(shards)]).astype(int)
    assert 0 < np.abs(frames["pillow"] - frames["uint8"]).max() <= 1


def test_chunks_hold_the_rows_in_their_order(source):
    rows, _ = pinned(source)
    chunks = plan(rows, 5)
    assert [chunk.number for chunk in chunks] == [0, 1, 2]
    assert [row for chunk in chunks for row in chunk.rows] == rows
    assert [len(chunk.rows) for chunk in plan([], 5)] == [0]


def test_a_record_is_json_of_a_few_bytes(source):
    """What is kept of a chunk is counts and reasons, not clips."""
    (source / "00001.mp4").write_bytes(b"x")
    with pytest.raises(DataError, match="quarantine"):
        run(source, max_quarantine_share=0.0)
    (record,) = Path(".erv/extract/mafw").rglob("*.json")
    assert json.loads(record.read_text()).keys() == {"sha256", "clips", "rejected"}


def inodes(folder):
    return {path.name: path.stat().st_ino for path in Path(folder).glob("*.parquet")}


def kept(dataset="mafw"):
    """The state folders of a data set."""
    return sorted(Path(".erv/extract", dataset).iterdir())


@pytest.fixture
def undecodable(monkeypatch):
    """From its call on, starting a decoder fails."""

    def worker(*arguments, **options):
        raise AssertionError("a clip was decoded")

    return lambda: monkeypatch.setattr("erv.media.workers.Worker", worker)


def test_what_cannot_alter_a_shard_decodes_nothing(source, caplog, undecodable):
    (source / "00002.mp4").write_bytes(b"not a film")
    rows, lock = pinned(source)
    changed = [dataclasses.replace(row, fold=2, split="test", label="anger") for row in rows]
    first = extract(rows, lock, None, settings(), Path("s"), Path("s.parquet"), workers=2)
    (folder,) = kept()
    assert inodes(folder) == inodes("s")  # which takes no space
    shutil.copytree("s", "before")
    undecodable()
    shutil.rmtree(source)
    shutil.rmtree("s")  # as DVC does before it runs a stage
    caplog.set_level("INFO")
    few = settings(max_quarantine_share=0.1)
    again = extract(changed, lock, None, few, Path("s"), Path("t.parquet"), workers=2)
    assert again == first
    assert "extract mafw: 3 of 3 shards kept from an earlier run" in caplog.text
    assert same_files(Path("before"), Path("s"))
    assert Path("s.parquet").read_bytes() == Path("t.parquet").read_bytes()
    assert kept() == [folder]
    # The limits hold for what is kept too.
    with pytest.raises(DataError, match="1 of 12 clips went into quarantine"):
        extract(rows, lock, None, settings(max_quarantine_share=0.0), Path("u"), Path("u.parquet"), workers=2)
    assert not Path("u").exists()


def test_shards_are_kept_until_those_of_another_key_are_complete(source, undecodable):
    run(source)
    run(source, "other", state="elsewhere")
    (first,) = kept()
    (source / "00011.mp4").write_bytes(b"not a film")
    with pytest.raises(DataError, match="went into quarantine"):
        run(source, "small", size=32, max_quarantine_share=0.0)
    assert first in kept()
    run(source, "small", size=32)
    (second,) = kept()
    assert second != first
    assert inodes(second) == inodes("small")
    # The published ones are whole without the state.
    assert same_files(Path("s"), Path("other"))
    undecodable()
    run(source, "small", size=32)
    with pytest.raises(AssertionError, match="a clip was decoded"):
        run(source, size=48)


@pytest.mark.parametrize("how", ["in place", "replaced", "cut short", "gone", "record"])
def test_a_damaged_kept_shard_is_rewritten(source, caplog, how):
    run(source)
    run(source, "good", state="elsewhere")
    (folder,) = kept()
    shard = folder / "shard-00001.parquet"
    content = shard.read_bytes()
    if how == "in place":
        shard.write_bytes(content[:-1] + b"?")
    elif how == "record":
        shard.with_suffix(".json").write_text("{}")
    else:
        shard.unlink()
        if how != "gone":
            shard.write_bytes(content[:-1] + (b"?" if how == "replaced" else b""))
    before = inodes(folder)
    linked = Path("s", shard.name).read_bytes()
    caplog.set_level("INFO")
    run(source, "t")
    assert "2 of 3 shards kept from an earlier run" in caplog.text
    assert ("kept shard 1 is damaged, rewriting it" in caplog.text) == (how not in ("gone", "record"))
    assert same_files(Path("t"), Path("good"))
    # A file that others may hold is not written to, damaged or not.
    assert Path("s", shard.name).read_bytes() == linked
    after = inodes(folder)
    assert after == inodes("t")
    assert all(after[name] == before[name] for name in after if name != shard.name)


def test_nothing_is_kept_where_there_are_no_hard_links(source, monkeypatch):
    run(source, "good", state="elsewhere")
    run(source, size=32)

    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr("os.link", refuse)
    run(source, "t")
    assert same_files(Path("t"), Path("good"))
    assert not [path for path in Path(".erv/extract").rglob("*") if path.suffix != ".lock"]


def test_a_second_extraction_of_the_same_data_set_is_refused(source):
    with (
        one_at_a_time("mafw", ROOT),
        pytest.raises(DataError, match=r"^mafw: another extraction of it is running .*mafw\.lock is held"),
    ):
        run(source)
    assert run(source).extracted == 12
