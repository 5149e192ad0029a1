from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from erv.errors import SettingsError
from erv.rewards import (
    NO_SHAPING,
    Shaping,
    accuracy_reward,
    build_rewards,
    explanation_reward,
    format_reward,
    sentence_labels,
)
from erv.settings import RewardSettings

LABELS = ("anger", "happiness", "sadness", "neutral")


class TableVerifier:
    """Probabilities by the first word of a sentence; counts its calls."""

    labels = LABELS
    table: ClassVar = {
        "Rage": (0.9, 0.0, 0.0, 0.0),
        "Joy": (0.0, 0.9, 0.0, 0.0),
        "Room": (0.0, 0.0, 0.0, 0.9),
        "Faint": (0.01, 0.02, 0.03, 0.01),
        "Calmly": (0.0, 0.2, 0.0, 0.9),
        "Gladly": (0.0, 0.9, 0.0, 0.2),
        "Mixed": (0.5, 0.6, 0.7, 0.4),
    }

    def __init__(self):
        self.calls = []

    def predict(self, sentences):
        self.calls.append(list(sentences))
        return torch.tensor([self.table[sentence.split()[0].strip(".")] for sentence in sentences])


def think(text, answer="anger"):
    return f"<think>{text}</think>\n<answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>a</think>\n<answer>b</answer>", 1.0),
        ("<think>a</think><answer>b</answer>\n", 1.0),
        ("<think> </think><answer>b</answer>", 0.0),
        ("<think>a</think><answer></answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0.0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0.0),
        ("<think><think>a</think><answer>b</answer>", 0.0),
        ("Sure. <think>a</think><answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<THINK>a</THINK><ANSWER>b</ANSWER>", 0.0),
        ("<think>a <ANSWER>c</ANSWER></think><answer>b</answer>", 0.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_strict_format(text, reward):
    assert format_reward([text]) == [reward]
    assert format_reward([[{"role": "assistant", "content": text}]]) == [reward]


@pytest.mark.parametrize(
    ("answer", "truth", "dataset", "reward"),
    [
        ("Happy", "happiness", "mafw", 1.0),
        ("happiness", "Happy", "dfew", 1.0),
        ("\nanger\n", "anger", "mafw", 1.0),
        ("angry.", "anger", "mafw", 1.0),
        ("danger", "angry", "dfew", 0.0),
        ("unhappy", "happiness", "mafw", 0.0),
        ("happy, sad", "happiness", "mafw", 0.0),
        ("happy</answer><answer>sad", "happiness", "mafw", 0.0),
        ("happy</answer><answer>happiness", "happiness", "mafw", 1.0),
        ("contempt", "happy", "dfew", 0.0),
        ("happy", "joyful nonsense", "mafw", None),
        ("Calm Blue", "calm  blue", None, 1.0),
    ],
)
def test_strict_accuracy(answer, truth, dataset, reward):
    assert accuracy_reward([think("x", answer)], [f"<answer>{truth}</answer>"], [dataset]) == [reward]


def test_text_without_an_answer_block_is_no_answer():
    assert accuracy_reward(["happiness", "<answer>happiness"], ["happiness"] * 2, ["mafw"] * 2) == [0.0, 0.0]
    # The released code takes the whole text.
    assert accuracy_reward(["happiness"], ["happiness"], ["mafw"], semantics="official") == [1.0]


@pytest.mark.parametrize(
    ("text", "truth", "reward"),
    [
        ("Rage here. Room there.", "anger", 1.0),
        ("Rage here. Joy there. Room.", "anger", 0.5),
        ("Room here. Room there.", "anger", 0.0),
        ("Room here. Rage there.", "neutral", 0.5),
        ("Rage here. Rage here. rage  here! Joy there.", "anger", 0.5),
        ("Calmly said.", "neutral", 1.0),
        ("Gladly said.", "neutral", 0.0),
        ("Gladly said.", "happiness", 1.0),
        ("Calmly said.", "happiness", 0.0),
        ("Mixed feelings.", "anger", 0.0),
        ("Faint signs.", "sadness", 0.0),
        ("Faint signs. Rage here.", "anger", 1.0),
        ("", "anger", 0.0),
    ],
)
def test_strict_explanation(text, truth, reward):
    assert explanation_reward(TableVerifier(), shaping=NO_SHAPING)([think(text)], [truth]) == [reward]


@pytest.mark.parametrize(
    ("text", "truth", "reward"),
    [
        ("Rage here.", "anger", 1 / 3),
        ("Room there. Rage here.", "anger", 1 / 3),
        ("Rage here. Rage here. Rage here!", "anger", 1 / 3),
        ("Rage here. Rage there. Rage again.", "anger", 1.0),
        ("Rage here. Joy there.", "anger", 1 / 3),
        ("Rage 1. Rage 2. Rage 3. Joy there.", "anger", 0.75),
        ("Room here. Calmly said.", "neutral", 2 / 3),
        ("Room here.", "anger", 0.0),
    ],
)
def test_short_explanations_earn_in_proportion(text, truth, reward):
    """The hole: a policy that keeps one closing phrase earned as much as one that explains."""
    shaping = replace(NO_SHAPING, min_sentences=3)
    assert explanation_reward(TableVerifier(), shaping=shaping)([think(text)], [truth]) == [
        pytest.approx(reward)
    ]
    official = explanation_reward(TableVerifier(), semantics="official", shaping=Shaping(min_sentences=3))
    assert official([think(text)], [truth])[0] >= reward


def test_explanation_reads_the_truth_in_its_own_space_and_asks_once():
    verifier = TableVerifier()
    reward = explanation_reward(verifier, shaping=NO_SHAPING)
    completions = [think("Rage here."), think("Joy there."), "no tags", think("Joy.")]
    truths = ["<answer>angry</answer>", "happy", "sad", "calm fury"]
    assert reward(completions, truths, dataset=["dfew"] * 4, clip_id=list("abcd")) == [1.0, 1.0, 0.0, None]
    assert len(verifier.calls) == 1
    assert reward.__name__ == "explanation_reward"


def test_no_sentence_in_the_batch_asks_nothing():
    verifier = TableVerifier()
    assert explanation_reward(verifier)(["", "<think> </think>"], ["anger", "joy"]) == [0.0, 0.0]
    assert verifier.calls == []


def test_thresholds_of_the_verifier_are_used():
    verifier = TableVerifier()
    verifier.thresholds = [0.1, 0.1, 0.1, 0.95]
    assert explanation_reward(verifier, shaping=NO_SHAPING)([think("Calmly said.")], ["happiness"]) == [1.0]


def test_official_keeps_neutral_beside_an_emotion():
    reward = explanation_reward(TableVerifier(), semantics="official")
    assert reward([think("Calmly said. Rage here.")], ["anger"]) == [0.5]
    strict = explanation_reward(TableVerifier(), shaping=NO_SHAPING)
    assert strict([think("Calmly said. Rage here.")], ["anger"]) == [1.0]


def test_sentence_labels_are_at_most_two_without_neutral():
    names = sentence_labels(torch.tensor([TableVerifier.table["Mixed"]]), LABELS, [0.1] * 4)
    assert names == [["sadness", "happiness"]]


def length_reward(completions, **columns):
    return [float(len(text)) for text in completions]


def test_build_rewards_resolves_names_and_dotted_paths():
    settings = [
        RewardSettings(name="format", weight=1.0),
        RewardSettings(name="accuracy", weight=0.5),
        RewardSettings(name="explanation", weight=2.0),
        RewardSettings(name=f"{__name__}:length_reward", weight=0.1),
        RewardSettings(name=f"{__name__}.length_reward", weight=0.1),
    ]
    rewards = build_rewards(settings, TableVerifier(), "strict", shaping=NO_SHAPING)
    assert [weight for _, _, weight in rewards] == [1.0, 0.5, 2.0, 0.1, 0.1]
    columns = {"completions": [think("Rage here.")], "solution": ["anger"], "dataset": ["mafw"]}
    assert [reward(**columns)[0] for _, reward, _ in rewards[:3]] == [1.0, 1.0, 1.0]
    assert rewards[3][1](**columns) == rewards[4][1](**columns) == [float(len(columns["completions"][0]))]
    assert [reward.__name__ for _, reward, _ in rewards][:2] == ["format_reward", "accuracy_reward"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fromat", "expected one of format, accuracy, explanation, coherence, grounded or the dotted path"),
        ("no.such.module", "can't be imported"),
        ("erv.settings.variants:BUILT_IN_REWARDS", "expected a callable, found tuple"),
        ("explanation", "needs a verifier"),
        ("coherence", "needs a verifier"),
        ("grounded", "needs the cues of the clips"),
    ],
)
def test_build_rewards_refuses_in_one_sentence(name, message):
    # Settings already refuse the first two in params.yaml; settings built in code get as clear a message.
    unchecked = RewardSettings.model_construct(name=name, weight=1.0)
    with pytest.raises(SettingsError, match=message):
        build_rewards([unchecked], None, "strict")


@pytest.mark.parametrize(
    "completion", [[], [{}], [{"content": None}], [{"content": [{"type": "text", "text": None}]}], ""]
)
@pytest.mark.parametrize("semantics", ["official", "strict"])
def test_completions_without_a_text_earn_nothing(completion, semantics):
    columns = {"solution": ["anger"], "dataset": ["mafw"]}
    assert format_reward([completion], semantics=semantics) == [0.0]
    assert accuracy_reward([completion], semantics=semantics, **columns) == [0.0]
    assert explanation_reward(TableVerifier(), semantics=semantics)([completion], **columns) == [0.0]


def test_official_reads_compound_labels_by_the_rules_of_mafw():
    """The released code looks for MAFW in the path of a clip."""
    columns = {"solution": ["happiness"], "dataset": ["mafw_compound"]}
    assert accuracy_reward([think("x", "happy")], semantics="official", **columns) == [1.0]
