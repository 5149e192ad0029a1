import base64
import io

import av
import numpy as np
import pytest
from PIL import Image

from erv.cues import ClipCues
from erv.report import media
from erv.report.clips import COHERENT, DISAGREE, RIGHT, agrees, change, entry, mixed, record
from erv.report.readings import read_sentences, sentences_of
from erv.shards import Clip
from tests.support.reports import LoudVerifier, clip_of, direct_of, loud, predictions_of


@pytest.fixture(scope="module")
def predictions():
    return predictions_of()


def said(predictions, clip):
    return {policy: rows[clip] for policy, rows in predictions.items()}


def decoded(url):
    """The bytes of a data URL."""
    return base64.b64decode(url.partition(";base64,")[2])


def test_every_emotion_comes_in_turn_and_nobody_chooses(predictions):
    order = mixed(predictions["sft"], seed=0)
    assert sorted(row["clip_id"] for row in order) == [row["clip_id"] for row in predictions["sft"]]
    labels = [row["label"] for row in order]
    assert labels[:3] == labels[3:6] == sorted(set(labels))
    assert order != mixed(predictions["sft"], seed=1)
    assert order == mixed(predictions["sft"][::-1], seed=0)


def test_the_list_says_what_is_right_coherent_and_disputed(predictions):
    # Clip 0 is anger and read as anger by both judges; the answer of sft is right, that of mine is fear.
    found = entry(said(predictions, 0))
    assert found["answers"] == ["anger", "fear", "anger"]
    assert found["flags"] == [RIGHT | COHERENT, 0, RIGHT | COHERENT]
    # Clip 1 is disgust; lexical reads anger, embedding disgust.
    assert entry(said(predictions, 1))["flags"][1] == RIGHT | DISAGREE
    # Clip 5 has no explanation that lexical could read: silence and a name are not the same verdict.
    assert entry(said(predictions, 5))["flags"][0] == DISAGREE


def test_what_gives_no_explanation_is_neither_incoherent_nor_disputed(predictions):
    both = {"sft": predictions["sft"][0], "direct": direct_of()[0]}
    assert both["direct"]["predicted"] == both["direct"]["label"]
    assert entry(both, ["direct"])["flags"] == [RIGHT | COHERENT, RIGHT]


def test_change_counts_other_answers_and_other_words():
    def row(words, answer):
        return {"completion": f"<think>{words}</think><answer>{answer}</answer>", "predicted": answer}

    same, other = row("a b c d", "fear"), row("a b x y", "fear")
    assert change([same, same]) == 0.0
    assert change([same, other]) == 0.5
    assert change([same, row("a b c d", "anger")]) == 1.0
    assert change([same, row("e f", "anger")]) == 2.0
    assert change([same, same, other]) == pytest.approx(1 / 3)
    assert change([same]) == change([row("", "fear"), row("", "fear")]) == 0.0


def test_each_sentence_has_what_verifier_and_judges_read(predictions):
    rows = [row for items in predictions.values() for row in items]
    readings = read_sentences(rows, LoudVerifier(), {"lexical": loud})
    assert readings.readers == ("verifier", "lexical")
    assert readings.of("mafw", "The voice is loud, burning with rage.") == [["anger"], ["happiness"]]
    assert readings.of("mafw", "The room is <b>plain</b> & dark.") == [["neutral"], []]
    assert sentences_of("no <tags> at all") == []
    assert read_sentences([rows[5]], LoudVerifier(), {"lexical": loud}).read == {}


def test_a_record_has_votes_claims_and_what_has_no_sentences_as_it_is(predictions):
    rows = [row for items in predictions.values() for row in items]
    readings = read_sentences(rows, LoudVerifier(), {})
    cues = ClipCues("00004", {"face": frozenset({"brows_lowered"})}, "face")
    found = record(said(predictions, 4), clip_of("mafw", "00004"), readings, cues, show_media=True)
    assert (found["cues"], found["channel"]) == (["brows lowered"], "face")
    assert found["answers"][0]["votes"] == [["named", "anger", False], ["unreadable", None, None]]
    assert ("voice loud", False) in found["answers"][0]["claims"]
    assert (found["sound"], found["seconds"], found["wave"]) == (None, None, [])  # it has no sound
    odd = record(said(predictions, 5), clip_of("mafw", "00005"), readings, None, show_media=True)
    assert odd["answers"][0]["raw"] == "no <tags> at all"
    assert odd["answers"][0]["unread"] == "malformed"


def test_a_vote_for_a_part_of_a_compound_answer_neither_agrees_nor_contradicts():
    answer = {"dataset": "mafw_compound", "predicted": "anger_disgust", "judged": None, "verdicts": []}
    heard = {
        "anger_disgust": ("named", True),
        "anger": ("named", None),
        "fear": ("named", False),
        None: ("outside", False),
    }
    for emotion, (outcome, expected) in heard.items():
        assert agrees(answer, {"outcome": outcome, "emotion": emotion}) is expected, emotion
    assert agrees(answer, {"outcome": "silent", "emotion": None}) is None
    assert agrees({**answer, "predicted": None}, {"outcome": "named", "emotion": "anger"}) is None


def test_frames_and_sound_that_may_not_be_shown_are_not_in_the_page(predictions):
    rows = [row for items in predictions.values() for row in items]
    readings = read_sentences(rows, LoudVerifier(), {})
    found = record(said(predictions, 1), clip_of("mafw", "00001"), readings, None, show_media=False)
    assert found["withheld"]
    assert found["frames"] is found["sound"] is None
    assert len(found["wave"]) == media.BARS
    assert "data:" not in str(found)


def test_frames_are_side_by_side():
    frames = np.zeros((9, 20, 30, 3), np.uint8)
    frames[-1] = 255
    image = Image.open(io.BytesIO(decoded(media.frames_strip(frames))))
    assert image.size == (media.FRAMES * media.FRAME_SIDE, media.FRAME_SIDE)
    assert max(image.getpixel((10, 10))) < 5
    assert min(image.getpixel((image.size[0] - 10, 10))) > 250
    assert Image.open(io.BytesIO(decoded(media.frames_strip(frames[:2])))).size[0] == 2 * media.FRAME_SIDE


def test_sound_is_what_it_was_for_a_decoder():
    """The file is a real one: FFmpeg gives back the samples within the steps of mu-law."""
    samples = np.concatenate([np.arange(-32000, 32000, 7), np.arange(-300, 300)]).astype(np.int16)
    file = decoded(media.sound(Clip("1", np.zeros((1, 4, 4, 3), np.uint8), samples, 8000)))
    with av.open(io.BytesIO(file)) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.rate, stream.channels) == ("pcm_mulaw", 8000, 1)
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)]).astype(float)
    assert len(heard) == len(samples)
    assert np.all(np.abs(heard - samples) <= np.abs(samples) / 16 + 4)


def test_sound_and_waveform_are_a_few_seconds():
    clip = Clip("1", np.zeros((1, 4, 4, 3), np.uint8), np.ones(16000 * 9, np.int16), 16000)
    assert len(decoded(media.sound(clip))) == pytest.approx(5 * 8000, rel=0.01)
    clip.audio[:] = np.where(np.arange(len(clip.audio)) < 16000 * 5, 100, 16384)
    peaks, loudest = media.waveform(clip)
    assert peaks == [100] * media.BARS
    assert loudest == pytest.approx(-50.3)
    assert media.seconds(clip) == 9.0
    assert media.waveform(clip_of("mafw", "00003")) == ([], None)
