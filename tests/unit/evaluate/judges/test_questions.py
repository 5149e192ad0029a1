"""What replies of a chat model mean."""

import json

import pytest

from erv.chat import Fault
from erv.evaluate.judges.protocol import OUTSIDE, SILENT, Verdict
from erv.evaluate.judges.questions import OfficialQuestions, OpenQuestions
from erv.labels import LabelSpace

DFEW = LabelSpace.load("dfew")
NO_EMOTION = (
    "none|None.|no emotion|No emotion.|no clear emotion|nothing|mixed|mixed feelings|several|multiple|both"
    "|not clear|not sure|ambiguous|undefined|null|N/A|unknown"
    "|not applicable|cannot determine|can't tell|indeterminate|inconclusive|ambivalent|contradictory"
    "|not stated|none given"
)


def read(said, space=DFEW):
    return OpenQuestions(space).read(json.dumps({"emotion": said}))


@pytest.mark.parametrize("said", NO_EMOTION.split("|"))
def test_what_names_no_emotion_or_several_is_silent(said):
    assert read(said) == SILENT


def test_what_names_one_is_not():
    assert [read(said) for said in ("Calm.", "anger", "Contempt.")] == [
        Verdict("named", "neutral"),
        Verdict("named", "angry"),
        OUTSIDE,
    ]
    assert all(isinstance(read(said), Fault) for said in ("", "...", "angry/sad", "angry, because he shouts"))


def test_null_is_silent():
    """It is what "give none" asks for in JSON."""
    assert read(None) == SILENT
    assert isinstance(OpenQuestions(DFEW).read("{}"), Fault)


@pytest.mark.parametrize(
    ("said", "emotion"),
    [
        ("very sad", "sad"),
        ("Deep sadness.", "sad"),
        ("slightly angry", "angry"),
        ("mild surprise", "surprise"),
    ],
)
def test_a_word_for_the_degree_changes_no_emotion(said, emotion):
    """It was an emotion outside the list, and so contradicted a right answer."""
    assert read(said) == Verdict("named", emotion)
    assert read("quiet pride") == OUTSIDE


@pytest.mark.parametrize("said", ["the person", "idle talk", "not sad", "hardly angry", "sad fear"])
def test_two_words_that_are_no_one_emotion_are_asked_about_again(said):
    assert isinstance(read(said), Fault)


def test_a_name_of_the_space_is_never_silent(tmp_path):
    path = tmp_path / "moods.yaml"
    path.write_text("name: moods\nlabels:\n  - {id: 1, name: mixed}\n  - {id: 2, name: joy}\n")
    space = LabelSpace.load(path)
    assert [read(said, space) for said in ("Mixed.", "both")] == [Verdict("named", "mixed"), SILENT]
    assert OfficialQuestions(space).read("bored") == OUTSIDE, "it has no neutral"


def test_the_official_filter_stays_as_released():
    assert OfficialQuestions(DFEW).read("no emotion") == Verdict("named", "neutral")
