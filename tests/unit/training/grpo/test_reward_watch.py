"""What is watched while GRPO runs: the shape of completions, rewards by emotion, and drift."""

import logging

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from erv.errors import TrainingError
from erv.training.grpo.checked_reward import CheckedReward
from erv.training.grpo.reward_watch import WINDOW, DriftAlarm, measure, reward_by_class
from erv.training.grpo.watch import Watcher
from erv.training.throughput import Throughput


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


def test_a_space_without_a_map_to_mafw_is_counted_by_its_own_names(tmp_path, monkeypatch):
    """Format and accuracy need no such map, so the monitor must not ask for one."""
    (tmp_path / "data" / "label_spaces").mkdir(parents=True)
    labels = "[{id: 1, name: bored}, {id: 2, name: keen}]"
    (tmp_path / "data" / "label_spaces" / "unmapped.yaml").write_text(f"name: unmapped\nlabels: {labels}\n")
    monkeypatch.chdir(tmp_path)
    found = reward_by_class("accuracy", [1.0, 0.0], ["<answer>Bored</answer>", "keen"], ["unmapped"] * 2)
    assert found == {"reward_by_class/accuracy/bored": 1.0, "reward_by_class/accuracy/keen": 0.0}


def test_a_reward_logs_what_is_watched_through_trl():
    logged = {}
    columns = {
        "solution": ["anger", "sadness"],
        "dataset": ["mafw", "mafw"],
        "log_metric": logged.__setitem__,
    }
    texts = [completion("He is in rage."), completion("She weeps.", "sadness")]
    CheckedReward("mine", lambda **_: [1.0, 0.0], watches=True)(completions=texts, **columns)
    assert logged["reward_by_class/mine/anger"] == 1.0
    assert logged["reward_by_class/mine/sadness"] == 0.0
    assert logged["explanations/sentences"] == 1.0
    logged.clear()
    CheckedReward("mine", lambda **_: [None, None])(completions=texts, **columns)
    assert logged == {}
    assert CheckedReward("mine", lambda **_: [1.0, 0.0], watches=True)(completions=texts) == [1.0, 0.0]


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


def test_a_resumed_run_knows_how_it_began(tmp_path, caplog):
    """The first steps are gone with the process; what they were is kept with the checkpoint."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    control, seen = TrainerControl(), []

    def steps(alarm, repeated, begin, end):
        state = TrainerState(global_step=begin, max_steps=100)
        watcher = Watcher(lambda metrics, step: seen.append(metrics), 100, alarm, Throughput("cpu"), 8)
        watcher.on_step_begin(arguments, state, control)
        for state.global_step in range(begin + 1, end + 1):
            logs = {
                "loss": 0.0,
                "reward": 1.0,
                "completions/mean_length": 9.0,
                "explanations/repeated": repeated,
            }
            watcher.on_log(arguments, state, control, logs=logs)

    first = DriftAlarm()
    steps(first, 0.0, 0, 15)
    first.save(tmp_path)
    second = DriftAlarm()
    second.load(tmp_path)
    with caplog.at_level(logging.WARNING):
        steps(second, 0.5, 15, 25)
    assert [record.getMessage() for record in caplog.records] == [
        "grpo step 21: explanations repeat their own sentences: explanations/repeated was 0.00 at first,"
        " 0.30 in the last 10 steps"
    ]
    assert [metrics["drift_warnings"] for metrics in seen] == [0.0] * 20 + [1.0] * 5
    second.load(tmp_path / "no such checkpoint")
    assert second == DriftAlarm()


def test_every_process_checks_and_the_main_one_reports(tmp_path, caplog):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    seen = []
    for main in (True, False):
        state = TrainerState(global_step=1, max_steps=9, is_world_process_zero=main)
        watcher = Watcher(lambda metrics, step: seen.append(step), 9, DriftAlarm(), Throughput("cpu"), 8)
        watcher.on_step_begin(arguments, TrainerState(), TrainerControl())
        with caplog.at_level(logging.INFO):
            watcher.on_log(arguments, state, TrainerControl(), logs={"loss": 0.5, "kl": 0.1})
        with pytest.raises(TrainingError, match="grpo step 1: grad_norm is nan"):
            watcher.on_log(arguments, state, TrainerControl(), logs={"loss": 0.5, "grad_norm": float("nan")})
        watcher.on_log(arguments, state, TrainerControl(), logs={"train_loss": 0.5})  # the summary
    assert seen == [1]
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["grpo: step 1/9"]
