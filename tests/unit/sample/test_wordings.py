import re

import numpy as np
import pytest

from erv.claims import WORDINGS, cues_in
from erv.sample.emotions import (
    EMOTIONS,
    EXPRESSIONS,
    FACE_CUES,
    contradiction_rate,
    emotions_with,
)
from erv.sample.wordings import TAILS, compose_explanation, cue_sentence


def join(sentences):
    return " ".join(text for text, _ in sentences)


def test_every_cue_and_emotion_has_words():
    assert list(WORDINGS["face"]) == list(FACE_CUES)
    assert set(TAILS) == set(EMOTIONS)
    for name, expression in EXPRESSIONS.items():
        assert expression.partner in EMOTIONS
        assert expression.partner not in (name, "neutral")
        assert set(expression.face) <= set(FACE_CUES)
        assert set(expression.voice) <= set(WORDINGS["voice"])


def test_no_two_emotions_look_and_sound_alike():
    assert len({(expression.face, expression.voice) for expression in EXPRESSIONS.values()}) == len(EMOTIONS)
    assert len({expression.face for expression in EXPRESSIONS.values()}) < len(EMOTIONS)
    assert len({expression.voice for expression in EXPRESSIONS.values()}) < len(EMOTIONS)


def test_an_explanation_speaks_of_its_emotion_and_its_cues():
    rng = np.random.default_rng(0)
    for emotion in EMOTIONS:
        for _ in range(30):
            sentences = compose_explanation(emotion, rng)
            assert 3 <= len(sentences) <= 6
            assert sentences[0][1] == ("neutral",)
            assert all(emotion in labels and len(labels) <= 2 for _, labels in sentences[1:])
            cues = cues_in(join(sentences))
            assert cues
            assert set(cues) <= {*EXPRESSIONS[emotion].face, *EXPRESSIONS[emotion].voice}


@pytest.mark.parametrize("family", ["a", "b"])
def test_sentences_split_where_they_were_joined(family):
    rng = np.random.default_rng(1)
    for emotion in EMOTIONS:
        sentences = [text for text, _ in compose_explanation(emotion, rng, family)]
        assert re.split(r"(?<=[.!?])\s+", " ".join(sentences)) == sentences


def test_the_families_share_no_sentence():
    rng = np.random.default_rng(2)
    texts = {
        family: {text for e in EMOTIONS for _ in range(40) for text, _ in compose_explanation(e, rng, family)}
        for family in ("a", "b")
    }
    assert not texts["a"] & texts["b"]


def test_silence_about_a_channel():
    rng = np.random.default_rng(3)
    for _ in range(20):
        cues = cues_in(join(compose_explanation("anger", rng, face_cues=(), voice_cues=("voice_loud",))))
        assert cues == ("voice_loud",)


def test_a_bare_cue_carries_every_emotion_that_has_it():
    rng = np.random.default_rng(4)
    bare = {
        labels
        for _ in range(100)
        for text, labels in [cue_sentence("fear", "eyes_wide", rng)]
        if "," not in text
    }
    assert bare == {("fear", "surprise")} == {emotions_with("eyes_wide")}


def test_the_planted_share_is_what_the_documentation_says():
    shares = [contradiction_rate(emotion) for emotion in EMOTIONS]
    assert 0.40 <= sum(shares) / len(shares) <= 0.50
    assert sorted(set(shares)) == [0.05, 0.75]
