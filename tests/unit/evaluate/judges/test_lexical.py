import pytest

from erv.errors import EvaluationError
from erv.evaluate.judges.lexical import LexicalJudge
from erv.evaluate.judges.protocol import OUTSIDE, SILENT, UNREADABLE, Verdict
from erv.evaluate.judges.worth import measure_worth, read_labelled
from erv.labels import LabelSpace
from erv.sample.emotions import EMOTIONS
from erv.sample.sample import stream
from erv.sample.wordings import compose_explanation
from tests.support.paths import ROOT


def join(sentences):
    return " ".join(text for text, _ in sentences)


MAFW, DFEW = LabelSpace.load("mafw"), LabelSpace.load("dfew")


def texts(family, count, name):
    rng = stream(0, "test", name)
    return [(join(compose_explanation(emotion, rng, family)), emotion) for emotion in EMOTIONS * count]


@pytest.fixture(scope="module")
def judge():
    rows = texts("b", 60, "judge")
    return LexicalJudge([text for text, _ in rows], [label for _, label in rows])


def test_it_reads_wordings_that_it_was_not_trained_on(judge):
    rows = texts("a", 20, "policy")
    read = judge.judge([text for text, _ in rows], MAFW)
    assert sum(said.emotion == label for said, (_, label) in zip(read, rows, strict=True)) / len(rows) > 0.9


def test_it_names_emotions_of_the_data_set_and_says_which_are_not_in_it(judge):
    rows = texts("a", 3, "dfew")
    read = judge.judge([text for text, _ in rows], DFEW)
    to_dfew = MAFW.to(DFEW)
    wanted = [Verdict("named", name) if (name := to_dfew(label)) else OUTSIDE for _, label in rows]
    assert sum(said == right for said, right in zip(read, wanted, strict=True)) / len(rows) > 0.9
    assert judge.judge(["Altogether the person seems worried."], DFEW) == [OUTSIDE]
    assert judge.knows(DFEW) == DFEW.names
    assert LexicalJudge(["Angry.", "Sad."], ["anger", "sadness"]).knows(DFEW) == ("sad", "angry")


def test_nothing_to_read_is_nothing_not_neutral(judge):
    assert judge.judge([None, "", "  ", "..."], MAFW) == [SILENT] * 4
    assert judge.judge([], MAFW) == []
    assert judge.judge(["Zxqv wplk.", "qqq"], MAFW) == [UNREADABLE] * 2
    assert judge.judge(["", "Someone here is angry, anger."], MAFW) == [SILENT, Verdict("named", "anger")]


FOREIGN = [
    "他低着头，眼里含着泪水。声音低沉而缓慢。他看起来很悲伤。",
    "Ihre Mundwinkel sinken nach unten. Die Stimme ist leise. Sie wirkt traurig.",
    "Los ojos se llenan de lágrimas. La voz baja y tiembla.",
]


def test_another_language_is_unreadable_not_an_emotion(judge):
    assert judge.judge(FOREIGN, MAFW) == [UNREADABLE] * 3
    said = [text for text, _ in texts("a", 20, "policy")]
    assert UNREADABLE not in judge.judge(said, MAFW)


def test_words_about_the_setting_are_no_emotion(judge):
    settings = ["The camera stays close to the head and shoulders.", "The shot is short and has no cut."]
    assert judge.judge(settings, MAFW) == [SILENT, SILENT]


def test_it_knows_a_word_by_its_stem(judge):
    said = ["The person must feel scornful.", "Altogether the person seems worried."]
    assert judge.judge(said, MAFW) == [Verdict("named", "contempt"), Verdict("named", "anxiety")]


def test_its_worth_on_explanations_by_policies_is_what_the_documentation_says(judge):
    """Read whole instead of sentence by sentence, it is right on 87% of them, and on 8 of 17 of fear."""
    worth = measure_worth(judge, read_labelled(ROOT / "data/judge_texts/policies.csv"))
    assert worth["accuracy"] > 0.9
    assert worth["emotions"]["fear"]["right"] >= 11


def test_equal_texts_make_an_equal_judge(judge):
    rows = texts("b", 60, "judge")[::-1]
    again = LexicalJudge([text for text, _ in rows], [label for _, label in rows])
    assert again.describe() == judge.describe()
    assert (again._model.coef_ == judge._model.coef_).all()


def test_another_text_or_label_makes_another_digest(judge):
    rows = texts("b", 60, "judge")
    said, labels = [text for text, _ in rows], [label for _, label in rows]
    others = (
        LexicalJudge([*said, "One text more."], [*labels, "anger"]),
        LexicalJudge(said, ["fear", *labels[1:]]),
    )
    assert len({judge.digest, *(other.digest for other in others)}) == 3


def test_csv_and_refusals():
    rows = texts("b", 5, "csv")
    sheet = "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows)
    assert LexicalJudge.from_csv(sheet).describe()["trained_on"] > 20
    with pytest.raises(EvaluationError, match="lacks the columns label"):
        LexicalJudge.from_csv("text\nx\n")
    with pytest.raises(EvaluationError, match="'bored' is not a name"):
        LexicalJudge(["x"], ["bored"])
    with pytest.raises(EvaluationError, match="too few"):
        LexicalJudge(["x"], ["anger"])


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        ("label,text\nanger\njoy,glad\n", "row 2 lacks its text or its label"),
        ("text,label\nglad,happiness\n ,anger\n", "row 3 lacks its text"),
        (
            "text,label\nOne is glad.,happiness\nOne is glad.,anger\n",
            "row 3 repeats a text with another label",
        ),
    ],
)
def test_odd_texts_are_refused(sheet, said):
    with pytest.raises(EvaluationError, match=said):
        LexicalJudge.from_csv(sheet)
