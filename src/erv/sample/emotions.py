"""What each emotion of the sample corpus looks and sounds like: cues, their action units, partners.

Facial cues follow the prototypes of the Facial Action Coding System (Ekman & Friesen), vocal cues the
acoustic correlates collected by Scherer (2003) and Juslin & Laukka (2003), both simplified. Three pairs of
emotions share a face and differ in voice, and four share a voice and differ in face, so neither channel is
enough.
"""

from __future__ import annotations

from dataclasses import dataclass

# Cue -> action units. 64 is the FACS code for eyes cast down.
FACE_CUES: dict[str, tuple[int, ...]] = {
    "brows_lowered": (4,),
    "hard_stare": (5, 7),
    "lips_pressed": (23,),
    "nose_wrinkled": (9,),
    "upper_lip_raised": (10,),
    "chin_raised": (17,),
    "brows_raised": (1, 2),
    "eyes_wide": (5,),
    "jaw_dropped": (25, 26),
    "smile": (12, 25),
    "eyes_crinkled": (6,),
    "inner_brows_up": (1, 4),
    "corners_down": (15,),
    "smirk": (12,),
    "cheek_dimpled": (14,),
    "brow_cocked": (2, 7),
    "gaze_down": (64,),
    "face_still": (),
}

# Cues with units 2 or 12 acting on only one side of the face.
ONE_SIDED = frozenset({"smirk", "brow_cocked"})


@dataclass(frozen=True)
class Expression:
    """The cues of one emotion, and the emotion that a contradicting explanation describes instead."""

    face: tuple[str, ...]
    voice: tuple[str, ...]
    partner: str


_WIDE = ("brows_raised", "eyes_wide", "jaw_dropped")
_GRIEF = ("inner_brows_up", "corners_down")
_STILL = ("face_still",)
_HARSH = ("voice_loud", "voice_harsh")
_TREMBLING = ("voice_trembling", "voice_high")
_FALLING = ("voice_slow", "voice_falling")
_EVEN = ("voice_even",)

EXPRESSIONS: dict[str, Expression] = {
    "anger": Expression(("brows_lowered", "hard_stare", "lips_pressed"), _HARSH, "sadness"),
    "disgust": Expression(("nose_wrinkled", "upper_lip_raised", "chin_raised"), _HARSH, "happiness"),
    "fear": Expression(_WIDE, _TREMBLING, "anger"),
    "happiness": Expression(("smile", "eyes_crinkled"), ("voice_melodic", "voice_fast"), "contempt"),
    "neutral": Expression(_STILL, _EVEN, "anxiety"),
    "sadness": Expression(_GRIEF, _FALLING, "surprise"),
    "surprise": Expression(_WIDE, ("voice_rising", "voice_sudden"), "anxiety"),
    "contempt": Expression(("smirk", "cheek_dimpled", "brow_cocked"), _EVEN, "fear"),
    "anxiety": Expression(_STILL, _TREMBLING, "disappointment"),
    "helplessness": Expression(_GRIEF, ("voice_faint", "voice_halting"), "anger"),
    "disappointment": Expression(("corners_down", "chin_raised", "gaze_down"), _FALLING, "fear"),
}

EMOTIONS: tuple[str, ...] = tuple(EXPRESSIONS)

# Emotions whose cold-start explanations mostly contradict the answer. This is systematic, because random
# noise would vanish under greedy decoding, and the policy would look coherent. Each one's partner is another
# of them, in a cycle, so that the corpus describes every emotion about equally often.
CONTRADICTED: frozenset[str] = frozenset(
    {"anger", "sadness", "surprise", "anxiety", "disappointment", "fear"}
)
_RATE_CONTRADICTED = 0.75
_RATE_OTHERS = 0.05


def contradiction_rate(emotion: str) -> float:
    """The share of an emotion's cold-start explanations that describe its partner instead."""
    return _RATE_CONTRADICTED if emotion in CONTRADICTED else _RATE_OTHERS


def emotions_with(cue: str) -> tuple[str, ...]:
    """The emotions expressed with this cue."""
    return tuple(
        name for name, expression in EXPRESSIONS.items() if cue in (*expression.face, *expression.voice)
    )
