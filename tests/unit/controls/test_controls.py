"""What each control shows, and what is measured of the answers."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from erv.controls.controls import chance, measure_control, write_answers
from erv.controls.showing import showing
from erv.errors import EvaluationError
from erv.shards import Clip
from tests.support.verdicts import rows_of

ROWS = rows_of("mafw", 40, splits=("test",))
DRAWN = {"samples": 200, "confidence": 0.95, "seed": 0}


def clip(clip_id):
    frames = np.full((2, 4, 4, 3), int(clip_id), np.uint8)
    return Clip(clip_id, frames, np.full(8, int(clip_id) + 1, np.int16), 16000)


def predictions(rows, answer=lambda row: row.label, judged=lambda row: row.label):
    return [
        {
            "dataset": row.dataset,
            "clip_id": row.clip_id,
            "split": row.split,
            "label": row.label,
            "completion": f"<think>A voice.</think><answer>{answer(row)}</answer>",
            "predicted": answer(row),
            "judged": judged(row),
            "sentences": 1,
        }
        for row in rows
    ]


def test_shuffled_clips_are_each_shown_once_and_never_for_themselves():
    shown = showing("shuffled", ROWS, {"00003"}, seed=1)
    assert sorted(shown.shown) == [row.clip_id for row in shown.rows] == [row.clip_id for row in ROWS]
    assert all(row.clip_id != other for row, other in zip(shown.rows, shown.shown, strict=True))
    assert shown.shown == showing("shuffled", ROWS[::-1], set(), seed=1).shown, "the order of rows decides"
    assert shown.shown != showing("shuffled", ROWS, set(), seed=2).shown
    given = list(shown.clips(clip))
    assert [item.clip_id for item in given] == [row.clip_id for row in shown.rows]
    assert [int(item.frames.max()) for item in given] == [int(name) for name in shown.shown]
    assert [int(item.audio[0]) - 1 for item in given] == [int(name) for name in shown.shown]
    assert showing("shuffled", ROWS[:1], set(), 1).left_out == 1


@pytest.mark.parametrize(
    ("control", "video", "samples", "loudest"),
    [("video_only", True, 0, None), ("sound_only", False, 8, 8), ("silenced", True, 8, 0)],
)
def test_a_modality_is_taken_away_as_the_policy_knows_it(control, video, samples, loudest):
    shown = showing(control, ROWS, {"00003", "00004"}, seed=0)
    assert (shown.video, shown.left_out, len(shown.rows)) == (video, 2, 38)
    given = {item.clip_id: item for item in shown.clips(clip)}
    assert "00003" not in given, "a clip without sound would be measured as if it had lost some"
    one = given["00007"]
    assert (one.has_audio, one.audio.size, one.audio.dtype) == (samples > 0, samples, np.int16)
    assert loudest is None or int(one.audio.max()) == loudest
    np.testing.assert_array_equal(one.frames, clip("00007").frames)


def test_subtitles_go_with_the_sound():
    rows = [replace(row, subtitle=f"said in {row.clip_id}") for row in ROWS]
    shown = showing("shuffled", rows, set(), seed=1)
    assert list(shown.subtitles.values()) == [f"said in {name}" for name in shown.shown]
    own = {row.clip_id: row.subtitle for row in rows}
    assert showing("sound_only", rows, set(), seed=1).subtitles == own
    for control in ("video_only", "silenced"):
        assert set(showing(control, rows, set(), seed=1).subtitles.values()) == {None}


def test_chance_is_the_mean_over_all_exchanges():
    random = np.random.default_rng(0)
    names = sorted({row.label for row in ROWS})
    answers = {row.clip_id: str(random.choice(names[:3])) for row in ROWS}
    rows = predictions(ROWS, lambda row: answers[row.clip_id] if int(row.clip_id) % 9 else None)
    expected = np.mean([a["label"] == b["predicted"] for a in rows for b in rows if a is not b])
    assert chance(rows) == pytest.approx(expected)
    other = [{**row, "dataset": "dfew"} for row in rows[:1]]
    assert chance(rows + other) == pytest.approx(expected * 40 / 41), "a single clip can't be exchanged"
    assert chance([]) == 0.0


def test_a_control_is_paired_with_the_same_clips_as_they_are():
    plain = predictions(ROWS)
    half = [row for row in ROWS if int(row.clip_id) % 2]
    wrong = predictions(half, lambda row: "anger", lambda row: None)
    found = measure_control("silenced", wrong, plain, **DRAWN)
    angry = sum(row.label == "anger" for row in half) / len(half)
    assert found["clips"] == {"overall": 20, "mafw": 20}
    assert found["plain"]["mafw"]["WAR"]["value"] == 1.0
    assert found["metrics"]["mafw"]["WAR"]["value"] == pytest.approx(angry)
    assert found["metrics"]["mafw"]["EEA"]["value"] == 0.0
    difference = found["difference"]["mafw"]["WAR"]
    assert difference["value"] == pytest.approx(angry - 1.0)
    assert difference["low"] < difference["value"] < difference["high"] < 0
    assert found["same_answer"] == {"overall": pytest.approx(angry), "mafw": pytest.approx(angry)}


def test_shuffled_answers_are_at_chance_unless_something_else_tells_the_truth():
    plain, shown = predictions(ROWS), showing("shuffled", ROWS, set(), seed=0)
    label = {row.clip_id: row.label for row in ROWS}
    seen = dict(zip((row.clip_id for row in shown.rows), shown.shown, strict=True))
    honest = measure_control("shuffled", predictions(ROWS, lambda r: label[seen[r.clip_id]]), plain, **DRAWN)
    cheat = measure_control("shuffled", plain, plain, **DRAWN)
    assert honest["metrics"]["overall"]["WAR"]["low"] <= honest["chance"]["overall"] < 0.1
    assert cheat["metrics"]["overall"]["WAR"]["low"] > cheat["chance"]["overall"]


def test_what_can_not_be_measured_is_refused():
    with pytest.raises(EvaluationError, match=r"'silenced' leaves no clip.*controls\.kinds"):
        measure_control("silenced", [], predictions(ROWS), **DRAWN)
    with pytest.raises(EvaluationError, match="clip '00000' of mafw is not in the plain evaluation"):
        measure_control("silenced", predictions(ROWS), predictions(ROWS[1:]), **DRAWN)


def test_the_answers_say_what_was_shown(tmp_path):
    rows = [{**row, "control": "shuffled", "shown": "00009"} for row in predictions(ROWS[::-1])]
    write_answers(rows, tmp_path / "controls.parquet")
    table = pq.read_table(tmp_path / "controls.parquet")
    assert table.column_names[:4] == ["control", "shown", "dataset", "clip_id"]
    assert table.column("clip_id").to_pylist() == [row.clip_id for row in ROWS]
