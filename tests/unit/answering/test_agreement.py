"""What agreement means: the explanation speaks of the answer, which is read as evaluation reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from erv.answering.agreement import agreement
from erv.labels import LabelSpace
from erv.prompts import format_completion
from erv.rewards import NO_SHAPING, explanation_reward

WORDS = {"shouts": "anger", "sneers": "disgust", "smiles": "happiness", "sits": "neutral"}
OWN = """
name: team
labels:
  - {id: 0, name: delight, synonyms: [bliss]}
  - {id: 1, name: calmness}
  - {id: 2, name: boredom}
maps: {mafw: {delight: happiness, calmness: neutral}}
"""


class Verifier:
    """Reads an emotion in a word."""

    def __init__(self, *more: str) -> None:
        self.labels = (*LabelSpace.load("mafw").names, *more)

    def predict(self, sentences: Sequence[str]) -> np.ndarray:
        return np.array(
            [
                [
                    any(word in text and WORDS.get(word, word) == name for word in (*WORDS, "boredom"))
                    for name in self.labels
                ]
                for text in sentences
            ],
            dtype=float,
        )


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "team.yaml").write_text(OWN)
    return str(tmp_path / "team.yaml")


def told(answer: str, *words: str) -> str:
    return format_completion(" ".join(f"He {word}." for word in words), answer)


@pytest.mark.parametrize("answer", ["anger", "happy", "neutral", "boredom", ""])
@pytest.mark.parametrize("words", [(), ("shouts",), ("shouts", "smiles", "sits"), ("sits",), ("walks",)])
def test_of_a_single_emotion_it_is_the_plain_reward(answer: str, words: tuple[str, ...]) -> None:
    reward = explanation_reward(Verifier(), shaping=NO_SHAPING)
    text = told(answer, *words)
    (expected,) = reward([text], [f"<answer>{answer}</answer>"], dataset=["mafw"])
    assert agreement(Verifier(), text, answer, ["mafw"]) == expected


def test_names_of_one_s_own_are_read_in_their_space(own: str) -> None:
    """They were looked up among MAFW's, so a good explanation had no agreement at all."""
    text = told("bliss", "smiles", "shouts")
    assert agreement(Verifier(), text, "bliss", [own]) == 0.5
    assert agreement(Verifier(), text, "bliss", ["mafw"]) is None
    assert agreement(Verifier(), text, "bliss", ["mafw", own]) == 0.5
    assert agreement(Verifier(), told("boredom", "boredom"), "boredom", [own]) is None
    assert agreement(Verifier("boredom"), told("boredom", "boredom"), "boredom", [own]) == 1.0


@pytest.mark.parametrize(
    ("answer", "of_both"), [("anger_disgust", 1.0), ("disgusted & angry", 1.0), ("anger and boredom", 0.5)]
)
def test_a_compound_answer_agrees_with_each_of_its_emotions(answer: str, of_both: float) -> None:
    """It had none, though EPC_any counts such an explanation."""
    text = told(answer, "shouts", "shouts loudly", "smiles", "sits")
    assert agreement(Verifier(), text, answer, ["mafw_compound"]) == pytest.approx(2 / 3)
    assert agreement(Verifier(), text, answer, ["mafw"]) is None
    both = told(answer, "shouts", "sneers", "sits")
    assert agreement(Verifier(), both, answer, ["mafw_compound"]) == of_both
