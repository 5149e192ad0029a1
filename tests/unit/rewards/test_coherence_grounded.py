"""Rewards beyond the paper: an explanation that fits its own answer, and one that is true of the clip."""

from typing import Any

import pytest
import torch

from erv.cues import ClipCues
from erv.rewards import NO_SHAPING, Shaping, build_rewards, explanation_reward
from erv.rewards.coherence import CoherenceReward
from erv.rewards.grounded import GroundedReward
from erv.settings import RewardSettings


class Words:
    """Labels by the first word of a sentence."""

    labels = ("happiness", "sadness", "neutral")

    def predict(self, sentences: list[str]) -> torch.Tensor:
        """One row per sentence."""
        rows = {"Joy": (0.9, 0.0, 0.0), "Tears": (0.0, 0.9, 0.0), "Room": (0.0, 0.0, 0.9)}
        return torch.tensor([rows[sentence.split()[0].strip(".,!")] for sentence in sentences])


def say(explanation: str, answer: str | None) -> str:
    return f"<think>{explanation}</think>" + ("" if answer is None else f"\n<answer>{answer}</answer>")


COHERENT = [
    ("Joy. Tears.", "happy", "dfew", 0.5),
    ("Joy. Tears.", "sadness", "mafw", 0.5),  # whatever the truth is
    ("Joy. Joy too.", " Happiness! ", "mafw", 1.0),  # read through the label space
    ("Tears. Room.", "happiness", "mafw", 0.0),
    ("Tears. Room.", "sad", "mafw", 1.0),
    ("Room.", "neutral", "mafw", 1.0),
    ("Joy.", None, "mafw", 0.0),  # no answer is no coherent one
    ("Joy.", "gladness and more", "mafw", 0.0),
    ("Joy.", "happy, sad", "mafw", 0.0),
    ("Joy.", "happiness</answer><answer>sadness", "mafw", 0.0),
    ("Joy.", "happiness</answer><answer>happy", "mafw", 1.0),  # the same twice
    ("Joy.", "contempt", "mafw", None),  # the verifier has no such column
    ("", "happiness", "mafw", 0.0),
]


@pytest.mark.parametrize(("explanation", "answer", "dataset", "reward"), COHERENT)
@pytest.mark.parametrize("truth", ["happiness", "sadness"])
def test_an_explanation_coheres_with_its_own_answer(
    explanation: str, answer: str | None, dataset: str, reward: float | None, truth: str
) -> None:
    coherence = CoherenceReward(Words(), shaping=NO_SHAPING)
    columns = {"solution": [truth], "dataset": [dataset]}
    assert coherence(completions=[say(explanation, answer)], **columns) == [reward]


def test_shaping_is_that_of_the_explanation_reward() -> None:
    shaping = Shaping(min_sentences=4)
    text = say("Joy. Joy two. Tears.", "happiness")
    columns: dict[str, Any] = {"completions": [text], "dataset": ["mafw"]}
    coherence = CoherenceReward(Words(), shaping=shaping)
    explanation = explanation_reward(Words(), shaping=shaping)
    assert coherence(**columns) == explanation(solution=["happiness"], **columns)
    official = CoherenceReward(Words(), semantics="official", shaping=shaping)
    assert official(**columns) == [pytest.approx(2 / 3)]
    assert official(completions=[say("Joy.", "angry-ish")], dataset=["dfew"]) == [0.0]


def test_its_credits_are_the_sentences_read_against_the_answer() -> None:
    text = say("Joy. Tears.", "sadness")
    (found,) = CoherenceReward(Words(), shaping=NO_SHAPING).credited([text], ["mafw"])
    assert [(text[c.start : c.end], c.value) for c in found.credits] == [("Joy.", 0.0), ("Tears.", 1.0)]


# --- grounded ---

KNOWN = {
    "mafw": {
        "c1": ClipCues("c1", {"face": frozenset({"eyes_wide"}), "voice": frozenset({"voice_trembling"})}),
        "c2": ClipCues("c2", {"face": frozenset({"smile"}), "voice": frozenset()}),
    }
}
EYES, VOICE, SMILE = (
    "The eyes are wide open, full of joy.",
    "The voice trembles.",
    "A broad smile spreads over the face.",
)
GROUNDED = [
    (f"{EYES} {VOICE}", "c1", 1.0),  # what it reads out of them doesn't matter here
    (f"{EYES} {SMILE}", "c1", 0.5),
    (f"{EYES} {VOICE} {SMILE}", "c1", 2 / 3),
    (EYES, "c1", 0.5),  # the voice tells something too
    (f"{EYES} {EYES} {EYES}", "c1", 0.5),  # once is enough
    (SMILE, "c1", 0.0),
    ("The person seems afraid.", "c1", 0.0),
    ("", "c1", 0.0),
    (SMILE, "c2", 1.0),  # only the face shows anything
    (f"{SMILE} {VOICE}", "c2", 0.5),
    (EYES, "elsewhere", None),
]


@pytest.mark.parametrize(("explanation", "clip", "reward"), GROUNDED)
def test_claims_are_compared_with_the_clip(explanation: str, clip: str, reward: float | None) -> None:
    (found,) = GroundedReward(KNOWN)(completions=[say(explanation, "fear")], dataset=["mafw"], clip_id=[clip])
    assert found == (None if reward is None else pytest.approx(reward))


def test_claims_outside_the_explanation_do_not_count() -> None:
    text = f"{EYES} <think>{VOICE}</think><think>{VOICE} {SMILE} {SMILE}</think><answer>{EYES}</answer>"
    (found,) = GroundedReward(KNOWN).credited([text], ["mafw"], ["c1"])
    assert found.reward == 0.5
    assert [(text[c.start : c.end], c.value) for c in found.credits] == [(VOICE, 1.0), (SMILE, 0.0)]


def test_both_are_built_by_name() -> None:
    named = [RewardSettings(name=name, weight=1.0) for name in ("coherence", "grounded")]
    built = build_rewards(named, Words(), "strict", shaping=NO_SHAPING, cues=KNOWN)
    text = say("Joy, for the eyes are wide open.", "happiness")
    columns = {"solution": ["sadness"], "dataset": ["mafw"], "clip_id": ["c1"]}
    assert [reward(completions=[text], **columns) for _, reward, _ in built] == [[1.0], [0.5]]
