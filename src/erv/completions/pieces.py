"""Pieces: the clips that are answered, read and kept together.

A piece is one batch, so its completions depend on nothing outside it: neither on what was generated before,
nor on how many processes share the work. Clips are sorted by the length of what is asked about them, so that
little of a batch is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """A clip and what is asked about it.

    Attributes:
        clip_id: as in the manifest.
        sound: whether the clip has sound; without it the prompt has no place for it.
        instruction: the text of the user turn; None for the policy's own.
    """

    clip_id: str
    sound: bool = True
    instruction: str | None = None

    @property
    def length(self) -> tuple[bool, int]:
        """What the prompt's length grows with: sound takes up hundreds of tokens."""
        return (self.sound, len(self.instruction or ""))


@dataclass(frozen=True)
class Decoding:
    """How completions are generated.

    Attributes:
        batch_size: clips per piece.
        max_new_tokens: a completion that has not ended by then is cut.
        temperature: 0 for greedy decoding, above 0 for sampling.
        samples: further completions per clip, sampled at `sample_temperature`.
        sample_temperature: above 0.
        seed: of the sampling; each completion has random numbers of its own, by its clip.
    """

    batch_size: int
    max_new_tokens: int
    temperature: float = 0.0
    samples: int = 0
    sample_temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Completed:
    """What a policy said about one clip: the completion that counts, and further samples."""

    clip_id: str
    completion: str
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Clips of one batch, in order.

    Attributes:
        number: from 0.
        clips: at least one.
    """

    number: int
    clips: tuple[Asked, ...]


def plan(clips: Sequence[Asked], batch_size: int) -> list[Piece]:
    """Cuts the clips of a data set into pieces, by length, then by clip id."""
    ordered = sorted(clips, key=lambda clip: (clip.length, clip.clip_id))
    starts = range(0, len(ordered), batch_size)
    return [Piece(number, tuple(ordered[start : start + batch_size])) for number, start in enumerate(starts)]
