import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erv.errors import DataError
from erv.shards import Clip, ShardFile, ShardReader, ShardWriter


def clip(name: str, value: int = 0, samples: int = 5) -> Clip:
    rng = np.random.default_rng(value)
    frames = rng.integers(0, 256, (8, 4, 6, 3), dtype=np.uint8)
    return Clip(name, frames, rng.integers(-9, 9, samples).astype(np.int16), 16000, has_audio=samples > 0)


def write(folder, count, per_shard):
    with ShardWriter(folder, per_shard) as writer:
        for index in range(count):
            writer.add(clip(f"{index:05d}", index, samples=index % 3))
    return folder


def test_clips_come_back_as_they_were(tmp_path):
    reader = ShardReader(write(tmp_path / "s", 40, 17), cached_groups=1)
    assert [path.name for path in sorted((tmp_path / "s").iterdir())] == [
        f"shard-0000{index}.parquet" for index in range(3)
    ]
    assert len(reader) == 40
    for index in (39, 0, 17, 16, 5):
        found, expected = reader.get(f"{index:05d}"), clip(f"{index:05d}", index, samples=index % 3)
        np.testing.assert_array_equal(found.frames, expected.frames)
        np.testing.assert_array_equal(found.audio, expected.audio)
        assert found.frames.dtype == np.uint8
        assert found.audio.dtype == np.int16
        assert found.has_audio == expected.has_audio
    assert [item.clip_id for item in reader] == reader.clip_ids


def test_equal_clips_give_equal_bytes(tmp_path):
    first, second = write(tmp_path / "a", 20, 8), write(tmp_path / "b", 20, 8)
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_a_failure_leaves_nothing_and_keeps_what_was(tmp_path):
    folder = write(tmp_path / "s", 3, 2)

    def interrupted():
        with ShardWriter(folder, 2) as writer:
            writer.add(clip("00009"))
            raise RuntimeError("decoder")

    with pytest.raises(RuntimeError, match="decoder"):
        interrupted()
    assert ShardReader(folder).clip_ids == ["00000", "00001", "00002"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_rewriting_replaces_all_shards(tmp_path):
    write(tmp_path / "s", 9, 2)
    assert len(ShardReader(write(tmp_path / "s", 2, 2))) == 2


def test_wrong_clips_are_refused(tmp_path):
    good = clip("00002")
    bad = [
        (Clip("00001", good.frames, good.audio, 16000), "order of their ids"),
        (Clip("00003", good.frames.astype(np.float32), good.audio, 16000), "expected uint8"),
        (Clip("00003", good.frames, good.audio.astype(np.float32), 16000), "expected int16"),
    ]
    for wrong, message in bad:
        with ShardWriter(tmp_path / "s", 2) as writer:
            writer.add(good)
            with pytest.raises(DataError, match=message):
                writer.add(wrong)


def test_a_clip_that_lost_its_sound_is_refused_on_both_ways(tmp_path):
    good = clip("00001")
    lost = Clip("00002", good.frames, good.audio[:0], 16000)
    gained = Clip("00002", good.frames, good.audio, 16000, has_audio=False)
    for wrong, said in (
        (lost, "with sound, but has 0 samples"),
        (gained, "without sound, but has 5 samples"),
    ):
        with ShardWriter(tmp_path / "s", 2) as writer:
            writer.add(good)
            with pytest.raises(DataError, match=f"'00002' is marked as one {said}"):
                writer.add(wrong)
    path = tmp_path / "s" / "shard-00000.parquet"
    table = pq.read_table(path)
    place, field = table.schema.get_field_index("audio"), table.schema.field("audio")
    pq.write_table(table.set_column(place, field, pa.array([b""], pa.binary())), path)
    with pytest.raises(DataError, match=r"'00001' is marked as one with sound, but has 0 samples"):
        ShardReader(tmp_path / "s").get("00001")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataError, match="no shards"):
        ShardReader(tmp_path)
    with pytest.raises(DataError, match="'nobody' is not in"):
        ShardReader(write(tmp_path / "s", 1, 1)).get("nobody")


def test_a_row_group_is_what_a_reader_fetches_at_once(tmp_path, monkeypatch):
    folder = write(tmp_path / "small", 40, 40)
    file = pq.ParquetFile(folder / "shard-00000.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4] * 10
    monkeypatch.setattr("erv.shards.BYTES_PER_GROUP", 2500)  # four clips of 576 bytes, and some sound
    file = pq.ParquetFile(write(tmp_path / "large", 10, 40) / "shard-00000.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [4, 4, 2]
    monkeypatch.setattr("erv.shards.BYTES_PER_GROUP", 10)
    folder = write(tmp_path / "huge", 3, 40)
    assert pq.ParquetFile(folder / "shard-00000.parquet").num_row_groups == 3
    assert len(ShardReader(folder)) == 3


def groups_read(reader, clip_ids, monkeypatch):
    """How many clips are decompressed to read these."""
    rows = []
    read = pq.ParquetFile.read_row_group

    def counted(file, group, *arguments, **options):
        table = read(file, group, *arguments, **options)
        rows.append(table.num_rows)
        return table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for clip_id in clip_ids:
        assert reader.get(clip_id).clip_id == clip_id
    return sum(rows)


def test_a_clip_of_the_usual_size_is_read_without_its_neighbours(tmp_path, monkeypatch):
    frames = np.zeros((8, 224, 224, 3), np.uint8)
    with ShardWriter(tmp_path / "s", 40) as writer:
        for index in range(9):
            writer.add(Clip(f"{index:05d}", frames, np.zeros(48_000, np.int16), 16_000))
    reader = ShardReader(tmp_path / "s", cached_groups=1)
    assert groups_read(reader, ["00003", "00008", "00001"], monkeypatch) == 3


def test_shards_with_the_large_groups_of_earlier_versions_stay_readable(tmp_path, monkeypatch):
    monkeypatch.setattr("erv.shards.ROWS_PER_GROUP", 16)
    monkeypatch.setattr("erv.shards.BYTES_PER_GROUP", 32 * 2**20)
    old = write(tmp_path / "old", 40, 40)
    monkeypatch.undo()
    new = write(tmp_path / "new", 40, 40)
    assert pq.ParquetFile(old / "shard-00000.parquet").num_row_groups == 3
    assert pq.ParquetFile(new / "shard-00000.parquet").num_row_groups == 10
    before, after = ShardReader(old), ShardReader(new)
    assert before.clip_ids == after.clip_ids
    assert before.silent == after.silent == {f"{index:05d}" for index in range(0, 40, 3)}
    for clip_id in before.clip_ids[::7]:
        np.testing.assert_array_equal(before.get(clip_id).frames, after.get(clip_id).frames)
        np.testing.assert_array_equal(before.get(clip_id).audio, after.get(clip_id).audio)


def test_order_holds_from_shard_to_shard(tmp_path):
    with ShardWriter(tmp_path / "s", 1) as writer:
        writer.add(clip("00002"))
        with pytest.raises(DataError, match="'00001' after '00002'"):
            writer.add(clip("00001"))


def test_an_empty_shard_is_a_shard(tmp_path):
    folder = write(tmp_path / "s", 2, 2)
    with ShardFile(folder / "shard-00001.parquet"):
        pass
    assert ShardReader(folder).clip_ids == ["00000", "00001"]
    assert len(ShardReader(write(tmp_path / "none", 0, 2))) == 0
