"""What counts as evidence, and that the lists behind it are sound."""

import pytest
import yaml

from erv.labels import LabelSpace
from erv.rewards import evidence
from erv.rewards.evidence import KINDS, evidence_in, evidence_of


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
    ("text", "readable"),
    [
        ("The brows are drawn together and he shouts at the other man.", True),
        ("Fear. Terror. Afraid.", True),
        ("Ihre Mundwinkel sinken nach unten. Die Stimme ist leise und langsam.", False),
        ("Los ojos se llenan de lágrimas. La voz baja y tiembla.", False),
        ("Les coins de la bouche tombent. La voix est basse et lente.", False),
        ("Уголки рта опущены. Голос тихий и медленный.", False),
        ("他低着头，眼里含着泪水。", False),
    ],
)
def test_the_lists_know_what_they_can_not_read(text, readable):
    assert evidence_in([text]).readable is readable


def test_every_name_of_an_emotion_is_in_the_lists():
    named = evidence._lists().named
    for name in ("mafw", "dfew", "ravdess"):
        space = LabelSpace.load(name)
        for word in {*space.names, *space._synonyms}:
            assert not evidence_of(word).content, word
            assert {evidence._base(part) for part in word.split()} <= named


def test_a_word_is_in_one_list():
    content = yaml.safe_load(evidence.resources.files("erv.rewards").joinpath(evidence.FILE).read_text())
    lists = [content["plain"], content["emotions"], *(content["cues"][kind] for kind in KINDS)]
    words = [word for text in lists for word in text.split()]
    assert sorted({word for word in words if words.count(word) > 1}) == []


def test_evidence_adds_up():
    found = evidence_in(["The voice is loud.", "The voice shakes."])
    assert (set(found.content), found.words) == ({"voice", "loud", "shake"}, 7)
