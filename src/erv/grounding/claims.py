"""What an explanation claims of face, voice and words, what of it is true, and what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from erv.claims import CHANNEL_OF, CHANNELS, cues_in
from erv.cues import KnownCues
from erv.prompts import parse_completion

KINDS = CHANNELS

Outcome = Literal["checked", "silent", "unknown", "malformed", "no_answer"]
OUTCOMES: tuple[Outcome, ...] = ("checked", "silent", "unknown", "malformed", "no_answer")


@dataclass(frozen=True)
class Case:
    """An explanation, and what is known of its clip without looking at it.

    Attributes:
        dataset: name of the data set.
        clip_id: as in the manifest.
        explanation: what the policy wrote; None if there is none.
        caption: a human description of the clip, if the data set has one.
    """

    dataset: str
    clip_id: str
    explanation: str | None
    caption: str | None = None


@dataclass(frozen=True)
class Claim:
    """Something that an explanation says of its clip.

    Attributes:
        text: the cue, or the words of the explanation.
        kind: `face`, `voice` or `words`.
        true: whether it is true of the clip; None if what is known of the clip doesn't say.
    """

    text: str
    kind: str
    true: bool | None


@dataclass(frozen=True)
class Fact:
    """Something that is known of a clip: the cue or the words of the caption, and whether it is mentioned."""

    text: str
    kind: str
    mentioned: bool


@dataclass(frozen=True)
class Finding:
    """What a check of one explanation found.

    Attributes:
        outcome: `checked`; `silent`, there is no explanation; `unknown`, nothing is known of the clip;
            `malformed` or `no_answer`, a judge gave no usable reply or none at all.
        claims: of the explanation; empty unless it was checked.
        facts: of the clip; cues count as facts of a silent explanation too, which mentions none.
        detail: one line about a reply that can't be used.
    """

    outcome: Outcome
    claims: tuple[Claim, ...] = ()
    facts: tuple[Fact, ...] = ()
    detail: str = ""


class Checker(Protocol):
    """Anything that can say which claims of an explanation are true of its clip.

    Attributes:
        shows: what it goes by: `cues`, `captions` or `clips`.
    """

    shows: str

    @property
    def name(self) -> str:
        """Its name in tables and messages."""

    def check(self, cases: Sequence[Case]) -> list[Finding]:
        """One finding per case, in order."""


class CueChecker:
    """Compares the cues that an explanation mentions with those that its clip is known to contain.

    Args:
        known: the cues of the clips.
    """

    name = shows = "cues"

    def __init__(self, known: KnownCues) -> None:
        self._known = known

    def check(self, cases: Sequence[Case]) -> list[Finding]:
        """One finding per case; `unknown` for clips whose cues are not recorded."""
        return [self._check(case) for case in cases]

    def _check(self, case: Case) -> Finding:
        clip = self._known.get(case.dataset, {}).get(case.clip_id)
        if clip is None:
            return Finding("unknown")
        truth = clip.by_channel
        said = cues_in(case.explanation or "")
        kinds = {**CHANNEL_OF, **truth}
        facts = tuple(Fact(cue, kind, cue in said) for cue, kind in truth.items())
        if not (case.explanation or "").strip():
            return Finding("silent", facts=facts)
        return Finding("checked", tuple(Claim(cue, kinds[cue], cue in truth) for cue in said), facts)


def cases_of(
    rows: Sequence[Mapping[str, Any]], captions: Mapping[tuple[str, str], str | None] | None = None
) -> list[Case]:
    """The explanations of a table of predictions.

    Args:
        rows: rows with dataset, clip_id and completion.
        captions: of the clips, by data set and clip id.
    """
    keys = [(row["dataset"], row["clip_id"]) for row in rows]
    return [
        Case(*key, parse_completion(row["completion"]).explanation, (captions or {}).get(key))
        for key, row in zip(keys, rows, strict=True)
    ]
