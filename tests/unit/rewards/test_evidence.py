"""What counts as evidence, and that the lists behind it are sound."""

import re

import numpy as np
import pytest
import yaml

from erv.labels import LabelSpace
from erv.rewards import Shaping, evidence, explanation_reward, uncovered
from erv.rewards.evidence import KINDS, evidence_of, lists_fit
from erv.sentences import Vocabulary

ENGLISH = [
    "The brows are drawn together and he shouts at the other man.",
    "She looks down, and her voice is so quiet that it is hard to hear.",
    "His hands are in his pockets as if nothing had happened to them.",
]


@pytest.mark.parametrize(
    ("sentence", "content", "cues"),
    [
        ("The person must feel afraid.", set(), set()),
        ("Afraid, scared, frightened.", set(), set()),
        ("He shouted, clenching his fists.", {"shout", "clench", "fist"}, {"shout", "clench", "fist"}),
        ("She cries and pushes him.", {"cry", "push"}, {"cry", "push"}),
        ("The lamp hangs over the lamps.", {"lamp", "hang"}, set()),
        ('He says "no way".', set(), set()),
        ('He says "I hate this place".', {"place"}, {'"quoted"'}),
        ("", set(), set()),
    ],
)
def test_evidence_of_a_sentence(sentence, content, cues):
    found = evidence_of(sentence)
    assert (set(found.content), set(found.cues)) == (content, cues)


@pytest.mark.parametrize(
    ("texts", "fit"),
    [
        (ENGLISH, True),
        (
            [
                "Ihre Mundwinkel sinken nach unten, und die Stimme ist leise und langsam.",
                "Er hat die Arme verschränkt und sieht so aus, als ob er wütend ist.",
                "Man hört, dass sie vor Freude lacht, und in ihren Augen sind Tränen.",
            ],
            False,
        ),
        (
            [
                "Los ojos se llenan de lágrimas y la voz baja y tiembla.",
                "El hombre me parece enfadado, no mira a nadie y habla muy alto.",
            ],
            False,
        ),
        (["他低着头,眼里含着泪水。"], False),
    ],
)
def test_the_lists_suit_a_verifier_of_their_language(texts, fit):
    assert lists_fit(Vocabulary.of(texts).words) is fit


def test_the_lists_judge_a_classifier_without_vocabulary():
    assert lists_fit(None)


class Knows:
    """A verifier trained on these texts; None if it doesn't say."""

    labels = ("sadness",)

    def __init__(self, *texts):
        self.vocabulary = Vocabulary.of(texts) if texts else None

    def predict(self, sentences):
        return np.full((len(sentences), 1), 0.9)


GERMAN = "Sie weint und ist traurig, und ihre Stimme zittert. Sie senkt den Kopf auf die Brust. Sie schweigt."


def test_what_the_lists_do_not_cover_is_said_and_done():
    """The docstring said that they don't apply to other languages; without a vocabulary they did."""
    texts = [f"<think>{GERMAN}</think>"]
    named = ["<think>Traurig und traurig. Sie ist traurig. So traurig ist sie.</think>"]
    for verifier, said, earned in (
        (Knows(GERMAN), "another language than English, so .* don't apply: .* only names the emotion", 1.0),
        (Knows(), "does not say which words .* one in another language has no cues and earns nothing", 0.0),
    ):
        assert re.search(said, uncovered(verifier, "strict"))
        assert explanation_reward(verifier)(texts, ["sadness"]) == [earned]
        assert explanation_reward(verifier)(named, ["sadness"]) == [earned]
        off = Shaping(min_content_words=None, min_cues=None, max_conclusions=None)
        assert uncovered(verifier, "strict", off) is None
        assert explanation_reward(verifier, shaping=off)(texts, ["sadness"]) == [1.0]
        assert uncovered(verifier, "official") is None
    assert uncovered(Knows(*ENGLISH), "strict") is None


@pytest.mark.parametrize(
    "text",
    [
        "Fear danger away whites wide narrow.",
        "Voice fear fear fear.",
        "Hands eyes brow fear.",
        "His fear fear voice.",
        "Terror body hands fear eyes shake.",
        "Fear face.",
    ],
)
def test_words_heaped_around_an_emotion_are_no_evidence(text):
    assert evidence_of(text) == evidence.Evidence()


@pytest.mark.parametrize(
    "text", ["A sad, tired voice.", "Furrowed brow, clenched jaw.", "Her fear shows in her trembling hands."]
)
def test_short_sentences_with_cues_are_evidence(text):
    assert evidence_of(text).cues


def test_every_name_of_an_emotion_is_in_the_lists():
    lists = evidence._lists()
    for name in ("mafw", "dfew", "ravdess"):
        space = LabelSpace.load(name)
        for word in {*space.names, *space._synonyms}:
            assert not evidence_of(word).content, word
            assert {evidence._base(part) for part in word.split()} <= lists.plain | lists.emotions


def test_a_word_is_in_one_list():
    content = yaml.safe_load(evidence.resources.files("erv.rewards").joinpath(evidence.FILE).read_text())
    lists = [content["plain"], content["emotions"], *(content["cues"][kind] for kind in KINDS)]
    words = [word for text in lists for word in text.split()]
    assert sorted({word for word in words if words.count(word) > 1}) == []


def test_evidence_adds_up():
    found = evidence.evidence_in(["The voice is loud.", "The voice shakes."])
    assert set(found.content) == {"voice", "loud", "shake"}
