"""The official semantics of rewards and sentence splitting, against vectors of the method's released code."""

import json
from pathlib import Path

import pytest
import torch

from erv.rewards import accuracy_reward, explanation_reward, format_reward
from erv.verifier import split_sentences

DATA = Path(__file__).parent / "data"
REWARD = json.loads((DATA / "reward_golden.json").read_text(encoding="utf-8"))
FORMAT_ACCURACY = json.loads((DATA / "format_accuracy_golden.json").read_text(encoding="utf-8"))["cases"]
COLUMNS = 28


class RecordedVerifier:
    """Answers with the recorded logits of each sentence."""

    def __init__(self, case):
        self.labels = [f"unmapped_{index}" for index in range(COLUMNS)]
        for name, index in REWARD["doc"]["label_map"].items():
            self.labels[index] = name
        self.logits = {s["text"]: s["logits"] for group in case["sentences"] for s in group}

    def predict(self, sentences):
        return torch.sigmoid(torch.tensor([self.logits[sentence] for sentence in sentences]))


def dataset_of(path):
    return "mafw" if "MAFW" in path else "dfew" if "DFEW" in path else None


@pytest.mark.parametrize("case", REWARD["cases"], ids=lambda case: case["id"])
def test_explanation_reward_equals_the_released_code(case):
    rewards = explanation_reward(RecordedVerifier(case), semantics="official")(
        case["completions"], case["solutions"]
    )
    if case["error"] == "IndexError":  # the released code crashes on a batch without a sentence
        assert rewards == [0.0] * len(case["completions"])
    elif case["error"] == "KeyError":  # and on a truth outside the eleven names
        assert rewards == [None]
    else:
        assert rewards == case["rewards"]


@pytest.mark.parametrize("case", REWARD["cases"], ids=lambda case: case["id"])
def test_messages_score_like_strings(case):
    reward = explanation_reward(RecordedVerifier(case), semantics="official")
    messages = [[{"role": "assistant", "content": text}] for text in case["completions"]]
    assert reward(messages, case["solutions"]) == reward(case["completions"], case["solutions"])


def test_a_bad_truth_costs_only_its_own_row():
    case = next(case for case in REWARD["cases"] if case["error"] == "KeyError")
    rewards = explanation_reward(RecordedVerifier(case), semantics="official")(
        case["completions"] * 2, [case["solutions"][0], "anger"]
    )
    assert rewards[0] is None
    assert rewards[1] is not None


@pytest.mark.parametrize("case", REWARD["cases"], ids=lambda case: case["id"])
def test_split_sentences_equals_the_released_code(case):
    for completion, sentences in zip(case["completions"], case["sentences"], strict=True):
        _, _, rest = completion.partition("<think>")
        text = rest.partition("</think>")[0] if "</think>" in rest else ""
        assert split_sentences(text) == [sentence["text"] for sentence in sentences]


@pytest.mark.parametrize("case", FORMAT_ACCURACY, ids=lambda case: case["id"])
def test_format_and_accuracy_equal_the_released_code(case):
    assert format_reward(case["completions"], semantics="official") == case["format_reward"]
    datasets = [dataset_of(path) for path in case["video"]]
    rewards = accuracy_reward(case["completions"], case["solutions"], datasets, semantics="official")
    assert rewards == case["accuracy_reward"]
