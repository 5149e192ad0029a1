"""The cues that a source records, on their way to `data/cues`."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from erv.cues import ClipCues
from erv.errors import DataError
from erv.ingest.cues import FILE, source_cues
from erv.pinning import pin
from erv.sources import Lock

ROW = {"clip_id": "7", "emotion": "fear", "face_cues": ["eyes_wide"], "voice_cues": []}


def pinned(folder: Path, rows: list[dict[str, Any]] | None) -> Lock:
    (folder / "clips").mkdir(parents=True)
    (folder / "clips" / "notes.txt").write_text("a source has some file")
    if rows is not None:
        pq.write_table(pa.Table.from_pylist(rows), folder / FILE)
    return pin("mafw", str(folder), None)


def test_cues_come_from_the_source_if_it_records_any(tmp_path: Path) -> None:
    assert source_cues(pinned(tmp_path / "with", [ROW]), None) == [
        ClipCues("7", {"face": frozenset({"eyes_wide"}), "voice": frozenset(), "words": frozenset()})
    ]
    more = ROW | {"word_cues": ["voice_loud"], "channel": "face", "contradicts": True}
    (clip,) = source_cues(pinned(tmp_path / "more", [more]), None)
    assert clip.by_channel == {"eyes_wide": "face", "voice_loud": "words"}
    assert (clip.shows_in, clip.contradicts) == ("face", True)
    assert source_cues(pinned(tmp_path / "without", None), None) == []


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"clip_id": "7"}, "not a readable table of cues"),
        (ROW | {"face_cues": ["third_eye"]}, "clip '7' has the cue 'third_eye', which has no wording"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        source_cues(pinned(tmp_path / "source", [row]), None)
