"""The coherence reward: the explanation speaks of the emotion that its own completion answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.prompts import Completion, completion_text, tagged
from erv.rewards.answers import normalize
from erv.rewards.credit import Credited
from erv.rewards.explanation import Shaping, assess, target_of
from erv.sentences import Semantics
from erv.verifier.protocol import Verifier


class CoherenceReward:
    """The share of an explanation's sentences that express the completion's own answer, right or wrong.

    Everything but the target is as in `explanation_reward`, shaping included. The answer is read strictly
    under both semantics: through the label space, and several that differ are none. A completion without a
    readable answer earns 0.0; one whose answer has no column in the verifier can't be scored.

    Nor can any completion for a clip whose true emotion has no such column. TRL counts what can't be scored
    as nothing earned, so within the group of such a clip only wrong answers could earn this reward.
    """

    __name__ = "coherence_reward"

    def __init__(
        self, verifier: Verifier, *, semantics: Semantics = "strict", shaping: Shaping | None = None
    ) -> None:
        """Takes what `explanation_reward` takes."""
        self._verifier = verifier
        self._options: dict[str, Any] = {"semantics": semantics, "shaping": shaping}

    def __call__(
        self,
        completions: Sequence[Completion],
        dataset: Sequence[str | None] | None = None,
        solution: Sequence[str] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion; `dataset` names their label spaces, None means MAFW.

        `solution` has the truths, of which only matters whether the verifier knows them; None if it does.
        """
        return [item.reward for item in self.credited(completions, dataset, solution)]

    def credited(
        self,
        completions: Sequence[Completion],
        dataset: Sequence[str | None] | None = None,
        solution: Sequence[str] | None = None,
        **columns: Any,
    ) -> list[Credited]:
        """The rewards with the verdict on each sentence that counts."""
        spaces = [name or "mafw" for name in dataset or [None] * len(completions)]
        texts = [completion_text(completion) for completion in completions]
        answers = [answered(text, space) for text, space in zip(texts, spaces, strict=True)]
        read = assess(self._verifier, texts, [answer or "" for answer in answers], spaces, **self._options)
        credited = [
            Credited(0.0) if answer is None else Credited(found.reward, found.credits())
            for answer, found in zip(answers, read, strict=True)
        ]
        if solution is None:
            return credited
        semantics, labels = self._options["semantics"], self._verifier.labels
        return [
            Credited(None) if target_of(truth, name, semantics, labels) is None else item
            for truth, name, item in zip(solution, spaces, credited, strict=True)
        ]


def answered(text: str, space: str) -> str | None:
    """The emotion that a completion answers, a name of its label space; None without exactly one."""
    names = {normalize(block, space) for block in tagged(text, "answer")}
    return names.pop() if len(names) == 1 else None
