"""Clips with several emotions, and answers in any words."""

import pytest
from sklearn.metrics import jaccard_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from erv.evaluate.evaluate import measure
from erv.evaluate.sets import compound_figures, set_metrics
from erv.labels import LabelSpace

MAFW, COMPOUND, DFEW = (LabelSpace.load(name) for name in ("mafw", "mafw_compound", "dfew"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anger", {"anger"}),
        ("Furious and disgusted.", {"anger", "disgust"}),
        ("anger_disgust", {"anger", "disgust"}),
        ("disgust, anger, bored", {"disgust", "anger", "bored"}),
        ("angry/mad", {"anger"}),
        ("anger, disgust and contempt", {"anger", "disgust", "contempt"}),
        ("sad but angry, mixed with disgust", {"sadness", "anger", "disgust"}),
        ("no emotion", {"neutral"}),
        ("", set()),
        (None, set()),
        (" , ; ", set()),
    ],
)
def test_an_answer_is_a_set_of_emotions(text, expected):
    assert COMPOUND.named_set(text) == expected


def test_the_parts_of_a_compound_are_single_emotions():
    assert COMPOUND.parts_of("anger_disgust_contempt") == {"anger", "disgust", "contempt"}
    assert [space.has_compounds for space in (MAFW, COMPOUND, DFEW)] == [False, True, False]


TRUTH = [{"anger", "disgust"}, {"fear"}, {"sadness", "helplessness"}, {"anger"}, {"fear", "surprise"}]
NAMED = [{"anger"}, {"fear"}, {"sadness", "helplessness", "bored"}, {"fear"}, set()]


def test_overlaps_are_those_of_scikit_learn():
    found = set_metrics(list(map(frozenset, TRUTH)), list(map(frozenset, NAMED)))
    binary = MultiLabelBinarizer().fit([*TRUTH, *NAMED])
    truth, named = binary.transform(TRUTH), binary.transform(NAMED)
    scores = precision_recall_fscore_support(truth, named, average="samples", zero_division=0)
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(list(scores[:3]))
    assert found["jaccard"] == pytest.approx(jaccard_score(truth, named, average="samples"))
    assert found["any"] == 0.6
    assert set(set_metrics([], []).values()) == {0.0}


def row(label, answer, judged):
    return {"label": label, "completion": f"<think>x</think><answer>{answer}</answer>", "judged": judged}


def test_a_compound_data_set_has_them():
    rows = [
        row("anger_disgust", "anger and disgust", "disgust"),
        row("anger_disgust", "anger", None),
        row("fear_surprise", "sadness", "surprise"),
        row("fear", "fear", "anger"),
    ]
    found = compound_figures(rows, COMPOUND)
    # Any of the labels is right: the released code's counting for several labels.
    assert found["set_any"] == 0.75
    assert found["set_precision"] == 0.75
    assert found["set_recall"] == 0.625
    assert found["EEA_any"] == 0.5
    assert compound_figures([row("anger", "anger", "anger")], MAFW) == {}


def test_only_single_emotions_are_pooled_with_other_data_sets():
    answers = (("anger", "anger"), ("anger_disgust", "anger and disgust"), ("fear", "anger and disgust"))
    predictions = [
        {
            **row(label, answer, label.partition("_")[0]),
            "dataset": "mafw_compound",
            "clip_id": label,
            "predicted": COMPOUND.normalize(answer),
            "sentences": 1,
        }
        for label, answer in answers
    ]
    measured = measure(predictions)
    assert (measured["mafw_compound"]["clips"], measured["overall"]["clips"]) == (3, 2)
    assert measured["mafw_compound"]["WAR"] == pytest.approx(2 / 3, abs=1e-6)
    assert measured["overall"]["WAR"] == 0.5, "an answer that MAFW has no name for is wrong"
    assert measured["overall"]["outside"] == 0
    assert measured["mafw_compound"]["EEA_any"] == 1.0
    assert "EEA_any" not in measured["overall"]
