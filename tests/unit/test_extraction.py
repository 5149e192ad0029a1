import dataclasses
import hashlib
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from erv.data.ingest import ingest
from erv.data.sample_clips import encode
from erv.data.sources import pin
from erv.errors import DataError
from erv.extraction import extract
from erv.settings import ExtractSettings
from erv.shards import ShardReader
from erv.workers import isolated
from tests.unit.test_media import movie

SETTINGS = ExtractSettings(
    frames=8,
    size=64,
    geometry="stretch",
    sample_rate=16000,
    missing_audio="quarantine",
    clip_timeout_seconds=30,
    workers=2,
    clips_per_shard=5,
    max_quarantine_share=0.5,
)


@pytest.fixture
def rows(corpus):
    lock = pin("mafw", str(corpus / "mafw"), None)
    return ingest("mafw", lock, None, fold=1, validation_share=0.1, seed=0).rows[:12]


def replaced(row, path: Path, content: bytes):
    path.write_bytes(content)
    return dataclasses.replace(row, uri=str(path), sha256=hashlib.sha256(content).hexdigest())


def test_shards_do_not_depend_on_the_number_of_workers(rows, tmp_path):
    folders = []
    for workers in (1, 3):
        settings = SETTINGS.model_copy(update={"workers": workers})
        folders.append(tmp_path / f"s{workers}")
        result = extract(rows, None, settings, folders[-1], tmp_path / f"q{workers}.parquet")
        assert (result.clips, result.extracted, result.quarantined) == (12, 12, 0)
    names = [path.name for path in sorted(folders[0].iterdir())]
    assert len(names) == 3
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    clip = ShardReader(folders[0]).get(rows[0].clip_id)
    assert clip.frames.shape == (8, 64, 64, 3)
    assert clip.audio.std() > 100
    assert pq.read_table(tmp_path / "q1.parquet").num_rows == 0


def test_every_clip_is_extracted_or_quarantined_with_a_reason(rows, tmp_path):
    broken = replaced(rows[2], tmp_path / "broken.mp4", b"not a film")
    silent = replaced(rows[5], tmp_path / "silent.mp4", encode(movie(), None))
    mixed = [broken if r is rows[2] else silent if r is rows[5] else r for r in rows]
    result = extract(mixed, None, SETTINGS, tmp_path / "s", tmp_path / "q.parquet")
    assert (result.clips, result.extracted, result.quarantined) == (12, 10, 2)
    listed = pq.read_table(tmp_path / "q.parquet").to_pylist()
    assert [(item["clip_id"], item["stage"]) for item in listed] == [
        (rows[2].clip_id, "extract"),
        (rows[5].clip_id, "extract"),
    ]
    assert listed[0]["reason"].startswith("video can't be decoded")
    assert listed[1]["reason"] == "no sound"
    reader = ShardReader(tmp_path / "s")
    assert {rows[2].clip_id, rows[5].clip_id}.isdisjoint(reader.clip_ids)


def test_missing_sound_can_be_marked_or_refused(rows, tmp_path):
    silent = [replaced(rows[0], tmp_path / "silent.mp4", encode(movie(), None))]
    mark = SETTINGS.model_copy(update={"missing_audio": "mark"})
    extract(silent, None, mark, tmp_path / "s", tmp_path / "q.parquet")
    clip = ShardReader(tmp_path / "s").get(rows[0].clip_id)
    assert clip.has_audio is False
    assert clip.audio.size == 0
    fail = SETTINGS.model_copy(update={"missing_audio": "fail"})
    with pytest.raises(DataError, match=f"{rows[0].clip_id}' has no sound"):
        extract(silent, None, fail, tmp_path / "t", tmp_path / "u.parquet")
    assert not (tmp_path / "t").exists()
    assert not (tmp_path / "u.parquet").exists()


def test_too_many_in_quarantine_fail_the_stage(rows, tmp_path):
    broken = [replaced(row, tmp_path / f"{row.clip_id}.mp4", b"x") for row in rows[:2]]
    with pytest.raises(DataError, match=r"2 of 3 clips went into quarantine, more than .*=0\.5"):
        extract([*broken, rows[2]], None, SETTINGS, tmp_path / "s", tmp_path / "q.parquet")
    assert not (tmp_path / "s").exists()


def misbehave(item: int) -> int:
    if item == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 4:
        time.sleep(600)
    if item == 6:
        raise ValueError("six")
    if item == 7:
        os._exit(3)
    return item * item


def test_a_worker_that_crashes_or_hangs_costs_one_item():
    started = time.monotonic()
    outcomes = list(isolated(misbehave, range(12), workers=2, seconds=5.0, expected=(ValueError,)))
    assert time.monotonic() - started < 300  # half of what the hang would take
    assert [outcome.item for outcome in outcomes] == list(range(12))
    failures = {outcome.item: outcome.failure for outcome in outcomes if outcome.failure}
    assert failures == {
        2: "decoder process died (signal 11)",
        4: "not done within 5 s",
        6: "six",
        7: "decoder exited (3)",
    }
    assert all(o.result == o.item**2 for o in outcomes if o.item not in failures)


def test_an_unexpected_error_is_not_a_failure_of_the_clip():
    with pytest.raises(ValueError, match="six"):
        list(isolated(misbehave, [5, 6], workers=1, seconds=20))
    assert list(isolated(misbehave, [], workers=1, seconds=20)) == []


def late_once(item: tuple[Path, int]) -> list[str]:
    """Item 1 hangs when it is tried first; item 4 always; what runs beside an item is its result."""
    folder, number = item
    mine, marks = folder / f"running-{number}", folder / f"tried-{number}"
    again = marks.exists()
    marks.touch()
    mine.touch()
    time.sleep(0.2)
    beside = sorted(path.name for path in folder.glob("running-*") if path != mine)
    if number == 4 or (number == 1 and not again):
        time.sleep(600)
    mine.unlink()
    return beside if again else []


def test_an_item_that_was_late_is_tried_once_more_alone(tmp_path):
    items = [(tmp_path, number) for number in range(8)]
    outcomes = list(isolated(late_once, items, workers=2, seconds=5.0))
    assert [outcome.item for outcome in outcomes] == items
    assert {o.item[1]: o.failure for o in outcomes if o.failure} == {4: "not done within 5 s"}
    # Item 4 is killed in its first try too and leaves its mark; nothing that runs does.
    assert outcomes[1].result in ([], ["running-4"])
    assert all(outcome.result == [] for outcome in outcomes if outcome.item[1] not in (1, 4))


PREPARED = []


def slow_start() -> None:
    time.sleep(6)
    PREPARED.append(True)


def was_prepared(item: int) -> bool:
    return bool(PREPARED)


def test_preparing_is_in_no_items_time():
    outcomes = list(isolated(was_prepared, [0], workers=1, seconds=5.0, prepare=slow_start))
    assert [(outcome.result, outcome.failure) for outcome in outcomes] == [(True, None)]


def fail_to_start() -> None:
    raise ImportError("no decoder")


def test_a_worker_that_cannot_start_ends_the_run():
    with pytest.raises(RuntimeError, match=r"could not start: decoder exited \(1\)"):
        list(isolated(was_prepared, [0], workers=1, seconds=5.0, prepare=fail_to_start))
