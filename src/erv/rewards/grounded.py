"""The grounded reward: what an explanation claims of face and voice is true of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from erv.claims import claims_in
from erv.cues import ClipCues, KnownCues
from erv.prompts import Completion, completion_text, tagged_spans
from erv.rewards.credit import Credit, Credited
from erv.sentences import sentence_spans


class GroundedReward:
    """The share of an explanation's claims that are true of the clip.

    A cue that is claimed twice counts once. The denominator is at least the number of channels in which the
    clip shows cues, so one safe claim about the face of a clip with a telling voice earns half. Without any
    claim, nothing is earned. Claims are found by their wordings (`erv.claims`); in other words nothing is
    claimed.
    """

    __name__ = "grounded_reward"
    maximum = 1.0

    def __init__(self, known: KnownCues) -> None:
        """Takes the cues of every clip, by data set and clip id (`erv.cues.read_cues`)."""
        self._known = known

    def __call__(self, completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        """One reward per completion; needs the columns `dataset` and `clip_id`."""
        return [item.reward for item in self.credited(completions, **columns)]

    def credited(
        self,
        completions: Sequence[Completion],
        dataset: Sequence[str],
        clip_id: Sequence[str],
        **columns: Any,
    ) -> list[Credited]:
        """The rewards, with the share of true claims of each sentence that claims something new."""
        return [
            self._read(completion_text(completion), self._known[name].get(clip))
            for completion, name, clip in zip(completions, dataset, clip_id, strict=True)
        ]

    def _read(self, text: str, clip: ClipCues | None) -> Credited:
        """None for a clip whose cues nobody has recorded."""
        if clip is None:
            return Credited(None)
        claimed: set[str] = set()
        sentences: list[tuple[int, int, list[bool]]] = []
        for start, end in _sentences(text):
            new = {claim.cue for claim in claims_in(text[start:end])} - claimed
            if new:
                claimed |= new
                sentences.append((start, end, [cue in clip.all for cue in sorted(new)]))
        if not claimed:
            return Credited(0.0)
        needed = sum(bool(cues) for cues in clip.channels.values())
        worth = len(claimed) / max(len(claimed), needed)
        true = len(claimed & clip.all)
        return Credited(
            true / len(claimed) * worth,
            tuple(Credit(start, end, worth * sum(found) / len(found)) for start, end, found in sentences),
        )


def _sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of all think blocks begin and end."""
    return [
        (begin + start, begin + end)
        for begin, stop in tagged_spans(text, "think")
        for start, end in sentence_spans(text[begin:stop], semantics="strict")
    ]
