import shutil
from collections import Counter

import pytest

from erv.errors import DataError
from erv.ingest.ingest import ingest
from erv.ingest.readers.by_name import selection_of
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

ACTORS = (1, 2, 18)


def settings(channels=("speech",), share=0.0, expect="subset"):
    return IngestSettings(
        fold=1,
        validation_share=0.5,
        expect=expect,
        max_excluded_share=share,
        readers={"ravdess": {"reader": "ravdess", "channels": channels}},
    )


def read(root, *channels, **changes):
    chosen = settings(channels or ("speech",), **changes)
    lock = pin("ravdess", str(root), None, selection=selection_of(chosen.readers["ravdess"]))
    return ingest("ravdess", lock, None, chosen, seed=0)


@pytest.mark.parametrize("shape", ["folders", "flat", "zips"])
@pytest.mark.parametrize("channels", [("speech",), ("song",), ("speech", "song")])
def test_names_are_read_in_every_shape(tmp_path, shape, channels):
    trees.write_ravdess(tmp_path, actors=ACTORS, shape=shape)
    result = read(tmp_path, *channels)
    speech, song = 60 * len(ACTORS), 44 * (len(ACTORS) - 1)
    assert len(result.rows) == speech * ("speech" in channels) + song * ("song" in channels)
    assert {row.split for row in result.rows} == {"test"}
    assert {row.fold for row in result.rows} == {0}
    assert result.unlisted == ()
    row = result.rows[0]
    assert row.clip_id.startswith("01-")
    assert row.raw_label == row.clip_id.split("-")[2]
    assert row.uri.endswith(f"{row.clip_id}.mp4")
    assert row.label_from.endswith(f"{row.clip_id}.mp4 (its name)")
    labels = Counter(row.label for row in result.rows)
    if channels == ("song",):
        assert labels == {"neutral": 24, "happy": 16, "sad": 16, "angry": 16, "fearful": 16}


def test_only_clips_with_sound_and_picture_are_pinned(tmp_path):
    trees.write_ravdess(tmp_path, actors=[1])
    chosen = settings().readers["ravdess"]
    lock = pin("ravdess", str(tmp_path), None, selection=selection_of(chosen))
    assert {file.path.split("/")[1][:5] for file in lock.files} == {"01-01"}
    assert lock.skipped["files"] == 2 * 60 + 3 * 44
    for name in ("Audio_Speech_Actors_01-24.zip", "Video_Song_Actor_01.zip"):
        assert selection_of(chosen).kind(name) == "skipped"
    assert selection_of(chosen).kind("Video_Speech_Actor_01.zip") == "file"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("Actor_01/01-01-01-01-01-01-01", "Actor_01/01-01-01-02-01-01-01", "neutral with strong intensity"),
        (
            "Actor_01/01-01-03-01-01-01-01",
            "Actor_01/01-01-09-01-01-01-01",
            "emotion that is not in the label",
        ),
        ("Actor_01/01-01-03-01-01-01-01", "Actor_01/01-01-03-01-01-01-25", "actor beyond 01..24"),
        ("Actor_01/01-01-03-01-01-01-01", "Actor_01/01-01-03-01-03-01-01", "statement or repetition"),
        ("Actor_01/01-01-03-01-01-01-01", "Actor_01/01-04-03-01-01-01-01", "channel that is not 01"),
        ("Actor_01/01-02-03-01-01-01-01", "Actor_01/01-02-07-01-01-01-01", "in song, which was not recorded"),
        ("Actor_01/01-01-03-01-01-01-01", "Actor_02/01-01-03-01-01-02-01", "folder give different actors"),
    ],
)
def test_names_that_cannot_be_are_excluded_with_their_reason(tmp_path, old, new, reason):
    trees.write_ravdess(tmp_path, actors=[1, 2], silent=False)
    (tmp_path / f"{old}.mp4").rename(tmp_path / f"{new}.mp4")
    with pytest.raises(DataError, match=rf"1 of 208 listed clips \(0\.5%\) can't be used: 1 x .*{reason}"):
        read(tmp_path, "speech", "song")
    result = read(tmp_path, "speech", "song", share=0.01)
    assert [(item.clip_id, item.listed_in) for item in result.excluded] == [
        (new.split("/")[1], f"{new}.mp4"),
    ]
    assert reason in result.excluded[0].reason
    assert len(result.rows) == 207


def test_a_clip_in_two_folders_is_refused(tmp_path):
    trees.write_ravdess(tmp_path, actors=[1], channels=["01"], silent=False)
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "Actor_01/01-01-03-01-01-01-01.mp4", tmp_path / "copy")
    with pytest.raises(
        DataError, match=r"1 clip is listed twice in the same split: 01-01-03-01-01-01-01 \(Actor"
    ):
        read(tmp_path)


def test_other_names_are_counted_as_unlisted(tmp_path):
    trees.write_ravdess(tmp_path, actors=[1], silent=False)
    (tmp_path / "Actor_01/intro.mp4").write_bytes(b"x")
    assert read(tmp_path).unlisted == ("Actor_01/intro.mp4",)


def test_a_full_set_lacks_no_actor(tmp_path):
    trees.write_ravdess(tmp_path, actors=range(1, 24), silent=False)
    with pytest.raises(DataError, match=r"listed clips 1380; expected the published listed clips 1440"):
        read(tmp_path, expect="full")


def test_other_channels_than_the_source_has(tmp_path):
    trees.write_ravdess(tmp_path, actors=[18])
    (tmp_path / "README.txt").write_text("Actor 18 did not sing.")
    with pytest.raises(DataError, match=r"no clip of song .*found at its top README.*ravdess\.channels"):
        read(tmp_path, "song")


def test_another_data_set(tmp_path):
    trees.write_dfew(tmp_path, 0.001)
    with pytest.raises(DataError, match=r"holds DFEW, expected RAVDESS .*`reader: dfew`"):
        read(tmp_path)
