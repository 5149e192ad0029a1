import pytest

from erv.errors import EvaluationError
from erv.evaluate.evaluate import measure, read_predictions, scope_rows, write_predictions
from erv.evaluate.metrics import (
    all_metrics,
    explanation_metrics,
    read_completion,
    recognition_metrics,
    shuffled_eea,
)
from erv.labels import LabelSpace
from erv.sentences import explanation_shape

MAFW, DFEW = LabelSpace.load("mafw"), LabelSpace.load("dfew")


def row(dataset, clip, label, predicted, judged, sentences=2):
    return {
        "dataset": dataset,
        "clip_id": clip,
        "split": "test",
        "label": label,
        "completion": "x",
        "predicted": predicted,
        "judged": judged,
        "sentences": sentences,
    }


def test_recognition_by_hand():
    truth = ["anger", "anger", "anger", "fear"]
    result = recognition_metrics(truth, ["anger", "fear", None, "fear"], ["anger", "fear", "sadness"])
    assert result["WAR"] == 0.5
    assert result["UAR"] == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert result["confusion"] == [[1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert result["unknown"] == 1


def test_explanations_by_hand():
    truth = ["anger"] * 5
    predicted = ["anger", "anger", "fear", "fear", None]
    judged = ["anger", "fear", "fear", "anger", "anger"]
    result = explanation_metrics(truth, predicted, judged)
    # The last one has no answer: its explanation, read alone, names the true emotion all the same.
    assert (result["EEA"], result["EPC"], result["FCR"]) == pytest.approx((0.6, 0.4, 0.2))
    assert result["unreadable"] == 1
    released = explanation_metrics(truth, predicted, judged, semantics="official")
    assert (released["EEA"], released["EPC"], released["FCR"]) == pytest.approx((0.4, 0.4, 0.2))


def test_an_absent_explanation_agrees_with_nothing():
    assert explanation_metrics(["neutral"], ["neutral"], [None])["EPC"] == 0.0


def test_uar_of_a_scope_is_over_emotions_that_occur():
    values = all_metrics(["happy", "sad"], ["happy", "happy"], ["happy", "sad"], DFEW)
    assert values["UAR"] == 0.5
    assert values["UAR_released"] == pytest.approx(1 / len(DFEW.names), abs=1e-6)  # absent ones are 0
    assert (values["EEA"], values["EEA_released"], values["clips"]) == (1.0, 1.0, 2)


def test_answers_outside_the_space_are_not_malformed():
    def said(completion):
        reading = read_completion(completion, MAFW)
        return {**row("mafw", "1", "anger", reading.predicted, "anger"), "completion": completion}

    rows = [
        said("<think>He shouts.</think>\n<answer>anger</answer>"),
        said("<think>He shouts.</think>\n<answer>bored</answer>"),
        said("<think>He shouts.</think>\n<answer>happiness and anger</answer>"),
        said("<think>He shouts.</think>"),
        said("<think>He shouts.</think>\n<answer> </answer>"),
    ]
    values = measure(rows)["mafw"]
    assert (values["outside"], values["malformed"]) == (2, 2)
    assert (values["EEA"], values["EPC"]) == (1.0, pytest.approx(0.2))
    assert values["EEA_released"] == pytest.approx(0.2)


def test_unequal_lengths_are_refused():
    with pytest.raises(EvaluationError, match="truth 1, predicted 2"):
        recognition_metrics(["anger"], ["anger", "fear"], MAFW)


@pytest.mark.parametrize(
    ("text", "predicted", "explanation", "sentences"),
    [
        ("<think>One. Two.</think>\n<answer>Happy</answer>", "happiness", "One. Two.", 2),
        ("<think>One.</think><answer>\nanger\n</answer>", "anger", "One.", 1),
        ("<think> </think><answer>anger</answer>", "anger", None, 0),
        ("<think>One.</think>", None, "One.", 1),
        ("<think>One.</think><answer>bored</answer>", None, "One.", 1),
        ("anger", None, None, 0),
    ],
)
def test_reading_a_completion(text, predicted, explanation, sentences):
    reading = read_completion(text, MAFW)
    assert (reading.predicted, reading.explanation, reading.sentences) == (predicted, explanation, sentences)


def test_overall_pools_in_the_mafw_space(tmp_path):
    rows = [
        row("mafw", "00002", "happiness", "happiness", "anger"),
        row("dfew", "2", "happy", "happy", "happy"),
        row("dfew", "1", "sad", None, None, 0),
    ]
    scopes = scope_rows(rows)
    assert [item["label"] for item in scopes["overall"]] == ["happiness", "happiness", "sadness"]
    values = measure(rows)
    assert values["overall"]["WAR"] == pytest.approx(2 / 3, abs=1e-6)
    assert values["overall"]["UAR"] == 0.5
    assert values["dfew"]["EPC"] == 0.5
    assert values["mafw"]["EPC"] == 0.0
    assert values["overall"]["sentences"] == pytest.approx(4 / 3, abs=1e-6)
    write_predictions(rows, tmp_path / "a.parquet")
    write_predictions(rows[::-1], tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert [item["clip_id"] for item in read_predictions(tmp_path / "a.parquet")] == ["1", "2", "00002"]


def test_shape_counts_words_and_what_is_said_twice():
    shape = explanation_shape(
        ["<think>He shouts. He is angry. he SHOUTS!</think>\n<answer>anger</answer>", "no tags at all"]
    )
    assert shape == {"sentences": 1.5, "words": 3.5, "repeated": pytest.approx(1 / 3)}
    assert explanation_shape([]) == {"sentences": 0.0, "words": 0.0, "repeated": 0.0}


def test_shuffled_labels_leave_chance():
    truth = ["anger", "fear"] * 50
    groups = ["mafw"] * 100
    assert explanation_metrics(truth, truth, truth)["EEA"] == 1.0
    control = shuffled_eea(truth, truth, groups, seed=0)
    assert control == pytest.approx(0.5, abs=0.03)
    assert control == shuffled_eea(truth, truth, groups, seed=0)
    assert control != shuffled_eea(truth, truth, groups, seed=1)
    # Labels stay in their data set: where all clips of one share a label, nothing changes.
    assert shuffled_eea(truth, truth, truth, seed=0) == pytest.approx(1.0)
    assert shuffled_eea(truth, [None] * 100, groups, seed=0) == 0.0
