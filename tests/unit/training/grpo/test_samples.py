"""What a step has sampled: whether it differs, whether it is the most, and how people see it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from erv.rewards import NO_SHAPING
from erv.training.common import throughput
from erv.training.common.throughput import Throughput
from erv.training.grpo.collapse import CollapseAlarm, Outlook, most_by_reward
from erv.training.grpo.generation import Generation
from erv.training.grpo.samples import take_samples
from erv.verifier.memory import SentenceMemory
from erv.verifier.model import EmotionVerifier

LABELS = ("happiness", "sadness", "neutral")


def completion(explanation: str) -> str:
    return f"<think>{explanation}</think>\n<answer>happiness</answer>"


def generation(*rewards: float | None, **changes) -> Generation:
    rows = len(rewards)
    made = Generation(
        step=1,
        group=2,
        completions=[completion(f"Joy {row}.") for row in range(rows)],
        rewards={"mine": list(rewards)},
        weights={"mine": 1.0},
        advantages=[0.5] * rows,
        columns={"clip_id": [f"c{row // 2}" for row in range(rows)]},
        prompt_tokens=50,
        completion_tokens=10,
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("rewards", "differs"),
    [
        ([1.0, 1.0, 0.0, 0.0], False),  # groups differ, but nothing is learned from that
        ([1.0, 1.0, 0.0, 0.1], True),
        ([None, 1.0, None, None], False),
        ([0.0, 1.0, None, None], True),
        ([1000.0, 1000.0001, 0.0, 0.0], False),  # noise of float32
    ],
)
def test_a_generation_differs_within_its_groups(rewards, differs):
    assert generation(*rewards).differs() is differs


def test_sums_are_what_is_compared():
    both = {"mine": [1.0, 0.0], "other": [0.0, 0.5]}
    made = generation(0.0, 0.0, rewards=both, weights={"mine": 1.0, "other": 2.0})
    assert made.totals == [1.0, 1.0]
    assert not made.differs()
    assert replace(made, weights={"mine": 1.0, "other": 1.0}).differs()


def test_rewards_are_compared_as_they_are_trained_with():
    made = generation(1 / 3, None)
    assert made.rewards == {"mine": [1 / 3, None]}
    assert made.trained_rewards == {"mine": [0.3333333432674408, None]}
    assert made.totals == [0.3333333432674408, None]


def test_what_processes_sampled_is_joined_in_their_order():
    columns = {"clip_id": ["c8", "c9"]}
    last = generation(None, 1.0, completions=["third", "fourth"], advantages=[0.1, 0.2], columns=columns)
    joined = Generation.join([generation(0.0, 0.5), last])
    assert joined == generation(
        0.0,
        0.5,
        None,
        1.0,
        completions=[completion("Joy 0."), completion("Joy 1."), "third", "fourth"],
        advantages=[0.5, 0.5, 0.1, 0.2],
        columns={"clip_id": ["c0", "c0", "c8", "c9"]},
        prompt_tokens=100,
        completion_tokens=20,
        processes=2,
    )
    assert [joined.completions[share] for share in joined.shares] == [
        [completion("Joy 0."), completion("Joy 1.")],
        ["third", "fourth"],
    ]


def test_the_most_that_there_is_to_earn():
    def own(**columns):
        return []

    def bounded(**columns):
        return []

    bounded.maximum = 5.0
    rewards = [("accuracy", own, 1.0), ("format", own, -1.0), ("own", own, 1.0), ("bounded", bounded, 1.0)]
    assert most_by_reward(rewards) == {"accuracy": 1.0, "format": 0.0, "own": None, "bounded": 5.0}
    assert generation(1.0, 1.0).earns_most({"mine": 1.0})
    assert not generation(1.0, 0.9).earns_most({"mine": 1.0})
    assert not generation(1.0, 1.0).earns_most({"mine": None})
    assert not generation(1.0, None).earns_most({"mine": 1.0})
    two = {"mine": [1.0, 1.0], "other": [None, 3.0]}  # one that can't be scored lacks nothing
    assert generation(0.0, 0.0, rewards=two, weights={"mine": 1.0, "other": 1.0}).earns_most(
        {"mine": 1.0, "other": 3.0}
    )
    assert generation(0.0, 0.0, rewards=two, weights={"mine": 1.0, "other": 0.0}).earns_most(
        {"mine": 1.0, "other": None}
    )


def test_the_count_starts_again_after_a_difference():
    alarm = CollapseAlarm(3, {"mine": 1.0})
    same, differs, most = generation(0.2, 0.2), generation(0.0, 1.0), generation(1.0, 1.0)
    outlooks = [
        alarm.update(replace(made, step=step))
        for step, made in enumerate([same, same, differs, most, most], start=1)
    ]
    assert outlooks == [Outlook.LEARNS] * 5
    assert alarm.last_good() == 3
    resumed = CollapseAlarm(3, {"mine": 1.0})
    resumed.restore(json.loads(json.dumps(alarm.state())))
    assert resumed == alarm
    assert resumed.update(replace(most, step=6)) is Outlook.SOLVED
    assert alarm.update(replace(same, step=6)) is Outlook.COLLAPSED
    resumed.restore({})
    assert resumed == CollapseAlarm(3, {"mine": 1.0})


def test_a_generation_counts_once_however_many_steps_train_on_it():
    alarm = CollapseAlarm(2, {"mine": 1.0})
    outlooks = [alarm.update(generation(0.2, 0.2, step=step)) for step in (1, 1, 1, 4, 4)]
    assert outlooks == [Outlook.LEARNS] * 3 + [Outlook.COLLAPSED, Outlook.LEARNS]
    assert alarm.last_good() == 0


def test_without_patience_nothing_ends():
    alarm = CollapseAlarm(None, {"mine": 1.0})
    assert {alarm.update(generation(0.2, 0.2, step=step)) for step in range(1, 50)} == {Outlook.LEARNS}
    assert alarm.last_good() is None


@pytest.mark.parametrize(
    ("rewards", "most", "says"),
    [
        ([0.2, 0.2], {"mine": 1.0}, "(they earn 0.20 on average, the maximum is 1.00)"),
        ([0.2, 0.2], {"mine": None}, "(they earn 0.20 on average)"),
        ([None, None], {"mine": 1.0}, "(none of them can be scored)"),
    ],
)
def test_a_collapse_says_what_was_earned(rewards, most, says):
    assert says in CollapseAlarm(3, most).describe(9, generation(*rewards))


# --- the table ---


@pytest.fixture(scope="module")
def verifier():
    """A verifier of random weights: what it reads is fixed, if not wise."""
    from transformers import BertConfig, BertForSequenceClassification

    from erv.sample.tiny_policy import train_wordpiece

    tokenizer = train_wordpiece(["joy tears room smiles sadly and gladly"] * 9, 120, 32)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(tokenizer), num_labels=len(LABELS), max_position_embeddings=32, **sizes
    )
    return EmotionVerifier(
        BertForSequenceClassification(config),
        tokenizer,
        labels=LABELS,
        thresholds=[0.5] * 3,
        max_length=32,
        memory=SentenceMemory(),
    )


class Words:
    """Labels by the first word of a sentence."""

    labels = LABELS

    def predict(self, sentences):
        rows = {"Joy": (0.9, 0.0, 0.0), "Tears": (0.0, 0.9, 0.0), "Room": (0.0, 0.0, 0.9)}
        return torch.tensor([rows[sentence.split()[0].strip(".,")] for sentence in sentences])


def test_every_sentence_has_its_verdict():
    text = "Joy. Joy. Tears fall. Room. Joy, happiness, anger, fear and sadness."
    made = generation(
        1.0,
        0.0,
        completions=[completion(text), "no tags <b>"],
        columns={
            "clip_id": ["c0", "c0"],
            "dataset": ["mafw", "mafw"],
            "solution": ["<answer>happiness</answer>", "<answer>contempt</answer>"],
        },
    )
    table = take_samples(7, made, Words(), shaping=replace(NO_SHAPING, max_named=2))
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert first["verdicts"].splitlines() == [
        "[matches; said 2 times, counts once] happiness: Joy.",
        "[another emotion] sadness: Tears fall.",
        "[merely neutral, not counted] neutral: Room.",
        "[names too many emotions, matches none] happiness: Joy, happiness, anger, fear and sadness.",
    ]
    assert (first["sentences_matching"], first["sentences_counted"]) == (1, 3)
    assert first["explanation_reward"] == pytest.approx(1 / 3)
    assert (second["label"], second["verdicts"], second["explanation_reward"]) == ("contempt", "", None)
    json.dumps(table.rows)

    page = table.html()
    assert "no tags &lt;b&gt;" in page
    assert "<td>another emotion</td><td>sadness</td><td>Tears fall.</td>" in page
    assert "No explanation with a sentence." in page
    assert "mine 1.00; sum 1.00, advantage +0.50" in page


def test_without_a_verifier_or_a_label_nothing_is_read():
    assert "verdicts" not in take_samples(1, generation(1.0, 0.0), None).columns
    table = take_samples(1, generation(1.0, 0.0), Words())
    assert "verdicts" not in table.columns
    assert [row[1:4] for row in table.rows] == [["c0", None, None]] * 2
    assert take_samples(1, generation(), None).rows == []


def test_some_completions_of_every_group_are_shown_first():
    made = generation(*range(12))
    shown = [row[5] for row in take_samples(1, made, None, count=8).rows]
    assert shown == [0, 2, 4, 6, 8, 10, 1, 3]


def test_a_page_takes_any_text():
    assert "\ud800" not in take_samples(1, generation(1.0, completions=["\ud800"]), None).html()


def test_reading_samples_leaves_the_memory_of_the_rewards_as_it_is(verifier, tmp_path: Path, monkeypatch):
    rewarded = verifier.predict(["Joy 1.", "Tears."])
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    verifier.memory.save(tmp_path / "before")
    reader = verifier.reader()
    made = generation(1.0, 0.0, columns={"solution": ["happiness"] * 2, "dataset": ["mafw"] * 2})
    read = take_samples(3, made, reader)
    assert read.samples[0].read.sentences[0].text == "Joy 0."
    verifier.memory.save(tmp_path / "after")
    (before,) = (tmp_path / "before").iterdir()
    (after,) = (tmp_path / "after").iterdir()
    assert before.read_bytes() == after.read_bytes()

    asked = []
    classify = reader._classify
    monkeypatch.setattr(reader, "_classify", lambda texts: asked.append(list(texts)) or classify(texts))
    again = reader.predict(["Tears.", "Joy 1.", "Joy 0."])
    assert asked == [["Joy 0."]], "what the rewards have read is not read again"
    assert torch.equal(again[:2], rewarded.flip(0))
    assert len(reader.memory) == 2


# --- the meter ---


def test_tokens_per_second_of_several_steps(monkeypatch):
    clock = iter([10.0, 12.0, 50.0, 52.0, 60.0, 61.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    with Throughput("cpu") as meter:
        for _ in range(2):
            meter.start()
            meter.stop()
            meter.count(trained=100, generated=10)
        assert meter.read() == {"tokens_per_second": 5.0, "trained_tokens_per_second": 50.0}
        meter.start()
        meter.stop()
        meter.count(trained=7)
        assert meter.read() == {"trained_tokens_per_second": 7.0}
        meter.stop()
        assert meter.read() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_tells_its_memory_and_its_use():
    with Throughput("cuda") as meter:
        meter.start()
        made = torch.ones(1 << 20, device="cuda")
        meter.stop()
        meter.count(trained=made.numel())
        found = meter.read()
        assert 0.004 <= found["gpu_memory_gb"] <= found["gpu_memory_reserved_gb"]
        assert 0.0 <= found.get("gpu_use", 0.0) <= 1.0
