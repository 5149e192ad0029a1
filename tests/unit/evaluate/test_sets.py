"""Clips with several emotions, and answers in any words."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from erv.evaluate.compare import compare
from erv.evaluate.evaluate import measure
from erv.evaluate.intervals import share_interval
from erv.evaluate.sets import SET_METRICS, compound_figures, set_metrics
from erv.evaluate.significance import in_words
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


def answers_of(answers, heard):
    """A policy's rows on twelve clips of fear and surprise at once; the second six are like the first."""
    return [
        {
            **row("fear_surprise", answer, judged),
            "dataset": "mafw_compound",
            "clip_id": str(clip),
            "predicted": COMPOUND.normalize(answer),
            "sentences": 1,
        }
        for clip, (answer, judged) in enumerate(zip(answers * 2, heard * 2, strict=True))
    ]


@pytest.fixture
def compared():
    """A policy that always names both emotions, and one that names one of them, or a wrong one."""
    both = answers_of(["fear and surprise"] * 6, ["fear"] * 6)
    one = answers_of(["fear", "surprise", "fear", "anger", "surprise", "fear, anger"], [None, *["anger"] * 5])
    return compare({"one": one, "both": both}, samples=500, confidence=0.95, seed=0)


def test_sets_are_compared_like_other_metrics(compared):
    values = {policy: scopes["mafw_compound"] for policy, scopes in compared["policies"].items()}
    found = {metric: values["one"][metric]["value"] for metric in SET_METRICS}
    assert found == pytest.approx(
        {
            "set_any": 5 / 6,
            "set_precision": (4 + 0 + 1 / 2) / 6,
            "set_recall": 5 / 2 / 6,
            "set_f1": (4 * 2 / 3 + 1 / 2) / 6,
            "set_jaccard": (4 / 2 + 1 / 3) / 6,
        },
        abs=1e-6,
    )
    gaps = compared["differences"]["both-one"]["mafw_compound"]
    for metric in (*SET_METRICS, "EEA_any"):
        gap, mine, others = gaps[metric], values["both"][metric], values["one"][metric]
        assert gap["value"] == pytest.approx(mine["value"] - others["value"], abs=2e-6)
        assert gap["low"] <= gap["value"] <= gap["high"]
    assert in_words("set_recall", gaps["set_recall"]) == "better"
    assert in_words("set_any", gaps["set_any"]) == "can't tell"
    assert "set_recall" not in compared["verdicts"]["both-one"]["mafw_compound"]
    assert "set_recall" not in compared["policies"]["both"].get("overall", {})


def test_twelve_clips_that_are_all_right_are_no_certainty(compared):
    """A bootstrap sees no spread there: it would say that the metric is 1 for certain."""
    for metric in (*SET_METRICS, "EEA_any"):
        interval = compared["policies"]["both"]["mafw_compound"][metric]
        assert (interval["value"], interval["high"]) == (1.0, 1.0)
        assert interval["low"] == pytest.approx(0.7575, abs=1e-4)  # Wilson's for 12 of 12


@pytest.mark.parametrize("shape", [(0.3, 0.3), (2.0, 1.0), (5.0, 5.0)])
def test_intervals_of_parts_hold_the_truth(shape):
    """95% intervals of means of values between 0 and 1, of which few clips have any, or all have some."""
    stream = np.random.default_rng(7)
    truth, held, repeats, clips = shape[0] / sum(shape), 0, 200, 24
    for _ in range(repeats):
        parts = stream.beta(*shape, size=clips)
        draws = parts[stream.integers(0, clips, size=(400, clips))].mean(axis=1)
        found = share_interval(parts, np.zeros(clips, dtype=int), parts.mean(), draws, 0.95)
        held += found["low"] <= truth <= found["high"]
    assert held / repeats >= 0.93


def test_one_part_of_a_compound_answer_does_not_contradict_it():
    """A right "fear and surprise" that is explained by fear alone was counted as inconsistent."""
    rows = answers_of(["fear and surprise"] * 6, ["fear"] * 5 + ["anger"])
    measured = measure(rows)["mafw_compound"]
    found = {metric: measured[metric] for metric in ("inconsistency", "EPC", "EPC_any")}
    assert found == pytest.approx({"inconsistency": 1 / 6, "EPC": 0, "EPC_any": 5 / 6}, abs=1e-6)
    compared = compare({"it": rows}, samples=100, confidence=0.95, seed=0)["policies"]["it"]
    for metric in ("inconsistency", "inconsistency_all", "EPC_any"):
        value = compared["mafw_compound"][metric]["value"]
        assert value == pytest.approx(measured[metric], abs=1e-6)
    assert COMPOUND.share_an_emotion("anger_disgust", "disgust")
    assert not COMPOUND.share_an_emotion("anger_disgust", "fear_surprise")
