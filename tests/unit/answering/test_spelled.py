"""An answer is read in the space that has it as a name, and all words for an emotion are answers of it."""

from __future__ import annotations

import pytest

from erv.answering.spelled import space_of, spellings
from erv.labels import LabelSpace

BOTH = ("dfew", "mafw")


@pytest.mark.parametrize(
    ("answer", "spaces", "name"),
    [
        ("sadness", BOTH, "mafw"),  # which DFEW knows as another word for `sad`
        ("Sadness.", BOTH, "mafw"),
        ("sad", BOTH, "dfew"),
        ("sad", BOTH[::-1], "dfew"),
        ("fear", BOTH, "dfew"),  # in both: the first
        ("sorrow", BOTH, "dfew"),  # a name in none
        ("helplessness", BOTH, "mafw"),
        ("sadness", ("dfew",), "dfew"),
        ("boredom", BOTH, "dfew"),
        ("anger and disgust", ("mafw", "mafw_compound"), "mafw_compound"),
    ],
)
def test_the_space_of_an_answer(answer: str, spaces: tuple[str, ...], name: str) -> None:
    assert space_of(answer, spaces).name == name


@pytest.mark.parametrize(
    ("answer", "sad", "afraid"),
    [
        ("sadness", "sorrow", "fear"),
        ("Fear", "Sorrow", "Fear"),
        ("SADNESS", "SORROW", "FEAR"),
    ],
)
def test_words_are_in_the_capitals_of_the_answer(answer: str, sad: str, afraid: str) -> None:
    space = LabelSpace.load("dfew")
    found = spellings(space, answer)
    assert tuple(found) == space.names
    assert sad in found["sad"]
    assert afraid in found["fear"]
    assert len(found["sad"]) == len(set(found["sad"])) == len(space.words_of("sad"))


@pytest.mark.parametrize(
    ("answer", "space", "name"),
    [("sadness.", "dfew", "sad"), ("disgusted & angry", "mafw_compound", "anger_disgust")],
)
def test_an_answer_is_among_the_words_of_its_label(answer: str, space: str, name: str) -> None:
    found = spellings(LabelSpace.load(space), answer)
    assert [label for label, words in found.items() if answer in words] == [name]


def test_an_answer_that_the_space_does_not_know_is_a_label_of_its_own() -> None:
    """`anxiety` in DFEW: `fear` had a score of 98% beside it, as if the policy had been that sure of fear."""
    space = LabelSpace.load("dfew")
    found = spellings(space, "anxiety")
    assert list(found) == [*space.names, "anxiety"]
    assert found["anxiety"] == ("anxiety",)


def test_no_word_is_of_two_labels() -> None:
    for space in map(LabelSpace.load, LabelSpace.shipped()):
        words = [word for written in spellings(space, "Fear").values() for word in written]
        assert len(words) == len(set(words))
