"""The accuracy reward: the answer is the true emotion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.prompts import Completion, completion_text, tagged
from erv.rewards.answers import bare, normalize, official_answer, official_normalize
from erv.sentences import Semantics


def accuracy_reward(
    completions: Sequence[Completion],
    solution: Sequence[str],
    dataset: Sequence[str | None],
    *,
    semantics: Semantics = "strict",
    **columns: Any,
) -> list[float | None]:
    """1.0 for the right answer, else 0.0.

    `strict` fixes the official rule: both sides are read through the label space, as whole words; an answer
    may be on its own line; text without an answer block is no answer; an answer that names more than one
    label is wrong, and so are several answer blocks that differ.

    Args:
        completions: n completions.
        solution: n truths, bare or as `<answer>truth</answer>`.
        dataset: n names of label spaces (`mafw`, `dfew`, ...); None compares the words as they are.
        semantics: `strict` or `official`.
        **columns: other columns of the batch; not read.

    Returns:
        n rewards; under `strict`, None if the truth is outside its label space.
    """
    score = _official_accuracy if semantics == "official" else _strict_accuracy
    return [
        score(completion_text(completion), truth, name)
        for completion, truth, name in zip(completions, solution, dataset, strict=True)
    ]


def _official_accuracy(text: str, truth: str, dataset: str | None) -> float:
    return 1.0 if official_normalize(official_answer(text), dataset) == official_answer(truth) else 0.0


def _strict_accuracy(text: str, truth: str, dataset: str | None) -> float | None:
    expected = normalize(bare(truth), dataset)
    if expected is None:
        return None
    answers = {normalize(block, dataset) for block in tagged(text, "answer")}
    return 1.0 if answers == {expected} else 0.0
