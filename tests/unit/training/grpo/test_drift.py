"""What is watched while GRPO runs: the shape of completions, rewards by emotion, and drift."""

from dataclasses import replace

import pytest

from erv.training.grpo.drift import BY_CLASS, WINDOW, DriftAlarm, measure, reward_by_class, shape
from erv.training.grpo.generation import Generation


def completion(explanation, answer="anger"):
    return f"<think>{explanation}</think>\n<answer>{answer}</answer>"


def test_the_shape_of_completions_by_hand():
    found = measure(
        [
            completion("He is in rage. He is in rage. Anger, fear and joy at once."),
            completion("Plain room.", "anger, fear"),
            "no tags at all",
            completion(" "),
        ]
    )
    assert found == {
        "explanations/sentences": 1.0,
        "explanations/words": 4.0,
        "explanations/repeated": 0.25,
        "explanations/listing": 0.25,
        "explanations/missing": 0.5,
        "answers/listing": 0.25,
    }
    assert measure([completion("Anger, fear.")], max_named=1)["explanations/listing"] == 1.0
    assert measure([])["explanations/missing"] == 0.0


def test_rewards_by_true_emotion():
    values = [1.0, 0.0, None, 0.5, 0.25]
    truths = ["<answer>angry</answer>", "anger", "anger", "sad", "boredom"]
    datasets = ["dfew", "mafw", "mafw", None, "mafw"]
    assert reward_by_class("explanation", values, truths, datasets) == {
        "reward_by_class/explanation/anger": 0.5,
        "reward_by_class/explanation/sadness": 0.5,
    }


def test_an_emotion_that_a_partial_map_leaves_out_is_counted_by_its_own_name(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "label_spaces"
    folder.mkdir(parents=True)
    labels = "[{id: 1, name: awe, synonyms: [awed]}, {id: 2, name: joy}]"
    (folder / "moods.yaml").write_text(f"name: moods\nlabels: {labels}\nmaps: {{mafw: {{joy: happiness}}}}\n")
    monkeypatch.chdir(tmp_path)
    truths = ["<answer>awed</answer>", "awe", "joy", "grief"]
    assert reward_by_class("accuracy", [1.0, 0.0, 1.0, 1.0], truths, ["moods"] * 4) == {
        f"{BY_CLASS}accuracy/awe": 0.5,
        f"{BY_CLASS}accuracy/happiness": 1.0,
    }


def test_a_space_without_a_map_to_mafw_is_counted_by_its_own_names(tmp_path, monkeypatch):
    """Format and accuracy need no such map, so the monitor must not ask for one."""
    (tmp_path / "data" / "label_spaces").mkdir(parents=True)
    labels = "[{id: 1, name: bored}, {id: 2, name: keen}]"
    (tmp_path / "data" / "label_spaces" / "unmapped.yaml").write_text(f"name: unmapped\nlabels: {labels}\n")
    monkeypatch.chdir(tmp_path)
    found = reward_by_class("accuracy", [1.0, 0.0], ["<answer>Bored</answer>", "keen"], ["unmapped"] * 2)
    assert found == {"reward_by_class/accuracy/bored": 1.0, "reward_by_class/accuracy/keen": 0.0}


def generation(*explanations, **changes):
    rows = len(explanations)
    made = Generation(
        step=1,
        group=rows,
        completions=[completion(text) for text in explanations],
        rewards={"mine": [1.0] * rows},
        weights={"mine": 1.0},
        advantages=[0.0] * rows,
        columns={},
        prompt_tokens=50,
        completion_tokens=10,
    )
    return replace(made, **changes)


def test_the_shape_of_a_generation_and_its_rewards_by_emotion():
    columns = {"solution": ["anger", "sadness"], "dataset": ["mafw", "mafw"]}
    rewards = {"mine": [1 / 3, 0.0], "other": [None, 2.0]}
    found = shape(generation("He is in rage.", "She weeps. She weeps.", columns=columns, rewards=rewards))
    assert {name: value for name, value in found.items() if name.startswith(BY_CLASS)} == {
        "reward_by_class/mine/anger": 0.3333333432674408,  # in float32
        "reward_by_class/mine/sadness": 0.0,
        "reward_by_class/other/sadness": 2.0,
    }
    assert found["explanations/sentences"] == 1.5
    assert found["explanations/repeated"] == 0.3333333432674408
    assert list(found) == sorted(found)
    unscored = shape(generation("He is in rage.", columns=columns, rewards={"mine": [None]}))
    assert not any(name.startswith(BY_CLASS) for name in unscored)
    unlabelled = shape(generation("Anger, fear."), max_named=1)
    assert unlabelled["explanations/listing"] == 1.0
    assert not any(name.startswith(BY_CLASS) for name in unlabelled)


def test_a_data_set_need_not_be_named():
    columns = {"solution": ["anger"]}
    assert shape(generation("He is in rage.", columns=columns))["reward_by_class/mine/anger"] == 1.0


def test_the_shape_of_several_processes_is_the_mean_over_them():
    columns = {"solution": ["anger", "anger", "anger", "sadness"]}
    rewards = {"mine": [1.0, 0.0, 0.0, 0.25]}
    made = generation("One.", "One. Two. Three.", "One.", "One.", columns=columns, rewards=rewards)
    assert shape(made)["reward_by_class/mine/anger"] == pytest.approx(1 / 3)
    two = shape(replace(made, processes=2))
    assert two["explanations/sentences"] == 1.5
    assert two["reward_by_class/mine/anger"] == 0.25  # 1/2 and 0
    assert two["reward_by_class/mine/sadness"] == 0.25  # one process has none


def run(alarm, metric, values):
    return [sentence for value in values for sentence in alarm.update({metric: value})]


@pytest.mark.parametrize(
    ("metric", "first", "then", "says"),
    [
        ("explanations/repeated", 0.0, 0.4, "explanations repeat their own sentences"),
        ("explanations/words", 30.0, 10.0, "explanations change their length"),
        ("explanations/words", 30.0, 90.0, "explanations change their length"),
        ("explanations/sentences", 4.0, 1.0, "explanations change their number of sentences"),
        ("explanations/listing", 0.0, 0.2, "sentences list emotions"),
        ("explanations/missing", 0.02, 0.5, "completions have no explanation"),
        ("answers/listing", 0.0, 0.2, "answers name several emotions"),
        ("reward_by_class/explanation/fear", 0.6, 0.1, "the reward of one emotion falls"),
    ],
)
def test_drift_is_said_once(metric, first, then, says):
    alarm = DriftAlarm()
    assert run(alarm, metric, [first] * (2 * WINDOW)) == []
    said = run(alarm, metric, [then] * (3 * WINDOW))
    assert said == [f"{says}: {metric} was {first:.2f} at first, {said[0].split(', ')[1]}"]
    assert alarm.warnings == 1
    assert run(alarm, metric, [first] * WINDOW) == []  # it comes back ...
    assert len(run(alarm, metric, [then] * WINDOW)) == 1  # ... and drifts again


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("explanations/repeated", [0.05, 0.1] * 20),
        ("explanations/words", [30.0, 36.0] * 20),
        ("reward_by_class/explanation/fear", [0.2] * 10 + [0.9] * 20),  # a reward may rise
        ("reward_by_class/explanation/fear", [0.9, 0.1] * 5 + [0.6, 0.0] * 5),  # jumps from step to step
        ("kl", [0.0] * 10 + [9.0] * 20),  # watched elsewhere
    ],
)
def test_what_is_no_drift(metric, values):
    assert run(DriftAlarm(), metric, values) == []


def test_one_odd_step_is_no_drift():
    alarm = DriftAlarm()
    assert run(alarm, "explanations/repeated", [0.0] * 15 + [0.9] + [0.0] * 15) == []
