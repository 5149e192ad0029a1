"""What a text claims of a clip: cues of face, voice and words, and where in the text each is claimed.

A claim is found by its wording. The wordings are those of the sample corpus, the only source here that
records which cues a clip truly has. Of its two families of wordings, explanations are written in the
clauses of family a, and only those are read; a text in other words claims nothing. Rewards and metrics
share this module, so that they mean the same by a claim.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from erv.sentences import sentence_spans

# Where a new clause begins, to which a negation before it doesn't reach.
_NEW_CLAUSE = re.compile(r"[,;:]|\b(?:but|yet|while|whereas|although|though)\b", re.I)
_NEGATION = re.compile(
    r"\b(?:not(?!\s+only)|no(?!\s+(?:doubt|question))|never|nobody|nothing|neither|nor"
    r"|without(?!\s+(?:a\s+)?doubt)|hardly)\b|n['\u2019]t\b",
    re.I,
)
_JOINED = re.compile(r",?\s+(?:and|or)\s+(?:that\s+)?", re.I)

Wording = tuple[tuple[str, ...], tuple[str, ...]]

# Cue -> (clauses of family a, noun phrases of family b).
_FACE: dict[str, Wording] = {
    "brows_lowered": (
        ("the brows are drawn together and lowered", "the forehead frowns over lowered brows"),
        ("a heavy frown", "the knitted eyebrows"),
    ),
    "hard_stare": (
        ("the eyes narrow into a hard stare", "the glare is tense and does not waver"),
        ("a piercing glare", "the stare of narrow eyes"),
    ),
    "lips_pressed": (
        ("the lips are pressed into a thin line", "the mouth is shut tight"),
        ("a tight mouth", "the lips squeezed thin"),
    ),
    "nose_wrinkled": (
        ("the nose wrinkles at the bridge", "the nose is scrunched up"),
        ("a wrinkled nose", "the creases beside the nose"),
    ),
    "upper_lip_raised": (
        ("the upper lip is curled up", "the upper lip lifts and bares the teeth"),
        ("a curled upper lip", "the lip pulled off the teeth"),
    ),
    "chin_raised": (
        ("the chin is pushed up under the lip", "the chin bunches below the mouth"),
        ("a bunched chin", "the chin shoved upward"),
    ),
    "brows_raised": (
        ("both brows shoot up high", "the raised brows crease the forehead"),
        ("a pair of lifted eyebrows", "the forehead folded by raised brows"),
    ),
    "eyes_wide": (
        ("the eyes are wide open", "the whites show around the wide eyes"),
        ("a wide stare", "the round and staring eyes"),
    ),
    "jaw_dropped": (
        ("the jaw drops and the mouth hangs open", "the mouth falls open"),
        ("an open mouth", "the dropped jaw"),
    ),
    "smile": (
        ("the corners of the mouth lift into a smile", "a broad smile spreads over the face"),
        ("a smile that shows teeth", "the smiling mouth"),
    ),
    "eyes_crinkled": (
        ("the cheeks push up and the eyes crinkle", "small lines crinkle beside the eyes"),
        ("a crinkle at the eyes", "the lifted cheeks"),
    ),
    "inner_brows_up": (
        ("the inner ends of the brows slant upward", "the brows rise toward the middle of the forehead"),
        ("a slanted pair of brows", "the eyebrows raised in the middle"),
    ),
    "corners_down": (
        ("the corners of the mouth pull down", "the mouth sinks at its corners"),
        ("a mouth with sinking corners", "the mouth turned down"),
    ),
    "smirk": (
        ("one corner of the mouth curls up", "a crooked smirk tightens one side of the mouth"),
        ("a smirk on one side", "the crooked corner of the lips"),
    ),
    "cheek_dimpled": (
        ("one cheek tightens into a dimple", "a dimple presses into the cheek"),
        ("a dimple in the cheek", "the tightened cheek"),
    ),
    "brow_cocked": (
        ("one eyebrow is cocked", "a single brow lifts in doubt"),
        ("a cocked eyebrow", "the single lifted brow"),
    ),
    "gaze_down": (
        ("the gaze drops to the floor", "the eyes are cast down"),
        ("a lowered gaze", "the eyes turned to the floor"),
    ),
    "face_still": (
        ("the face hardly moves", "no muscle of the face moves"),
        ("a motionless face", "the still features"),
    ),
}
_VOICE: dict[str, Wording] = {
    "voice_loud": (
        ("the voice is loud", "the words are almost shouted"),
        ("a loud volume", "the raised voice"),
    ),
    "voice_harsh": (
        ("the tone is harsh and rough", "the voice grates on every word"),
        ("a rough tone", "the harsh sound of the speech"),
    ),
    "voice_melodic": (
        ("the voice swings up and down like a melody", "the tone is bright and lively"),
        ("a lively melody of speech", "the bright tone"),
    ),
    "voice_fast": (
        ("the words come quickly", "the speech is fast"),
        ("a quick pace", "the fast speech"),
    ),
    "voice_even": (
        ("the voice stays even and level", "the tone never changes"),
        ("an even voice", "the level tone"),
    ),
    "voice_slow": (
        ("the words come slowly", "the speech drags"),
        ("a slow pace", "the dragging speech"),
    ),
    "voice_falling": (
        ("the pitch sinks toward the end", "the voice falls low"),
        ("a sinking pitch", "the voice that falls away"),
    ),
    "voice_trembling": (
        ("the voice trembles", "the voice shakes on every syllable"),
        ("a trembling voice", "the shaking speech"),
    ),
    "voice_high": (
        ("the pitch is high and thin", "the voice climbs high"),
        ("a high pitch", "the thin, high sound"),
    ),
    "voice_rising": (
        ("the pitch rises steeply at the end", "the voice leaps upward"),
        ("a steeply rising pitch", "the upward leap of the voice"),
    ),
    "voice_sudden": (
        ("the words burst out", "the sound comes in a sudden burst"),
        ("a sudden burst of sound", "the bursting speech"),
    ),
    "voice_faint": (
        ("the voice is faint and full of breath", "the sound is barely more than a whisper"),
        ("a faint whisper", "the breath in the voice"),
    ),
    "voice_halting": (
        ("the speech halts again and again", "long pauses break the words"),
        ("a halting speech", "the many pauses"),
    ),
}
# Channel of a clip -> its cues. The sample corpus speaks no words; a source of your own may add some here.
WORDINGS: dict[str, dict[str, Wording]] = {"face": _FACE, "voice": _VOICE, "words": {}}
CHANNELS = tuple(WORDINGS)
CUE_WORDINGS: dict[str, Wording] = {cue: said for cues in WORDINGS.values() for cue, said in cues.items()}
CHANNEL_OF: dict[str, str] = {cue: channel for channel, cues in WORDINGS.items() for cue in cues}


@dataclass(frozen=True)
class Claim:
    """One cue that a text claims.

    Attributes:
        cue: a key of `CUE_WORDINGS`.
        start: the first character of the clause.
        end: the character after its last one.
    """

    cue: str
    start: int
    end: int


def claims_in(text: str) -> tuple[Claim, ...]:
    """The claims of a text in the clauses of family a, by place; a cue that is claimed twice is there twice.

    Each sentence is read by itself, as rewards split a text (`strict`). Case and white space between words
    don't matter. A claim is none if a negation in its own clause denies it, or if it is joined to one that is
    denied: "it is not true that the voice is loud and the words come quickly".
    """
    spans = sentence_spans(text, semantics="strict")
    return tuple(
        Claim(claim.cue, start + claim.start, start + claim.end)
        for start, end in spans
        for claim in _in_sentence(text[start:end])
    )


def _in_sentence(sentence: str) -> list[Claim]:
    found = sorted(
        (
            Claim(cue, match.start(), match.end())
            for cue, clauses in _clauses().items()
            for match in clauses.finditer(sentence)
        ),
        key=lambda claim: (claim.start, claim.cue),
    )
    made: list[Claim] = []
    end, denied = 0, False  # of the claim before
    for claim in found:
        before = sentence[end : claim.start]
        own_clause = _NEW_CLAUSE.split(before)[-1]
        denied = _NEGATION.search(own_clause) is not None or (
            denied and _JOINED.fullmatch(before) is not None
        )
        made += [] if denied else [claim]
        end = claim.end
    return made


def cues_in(text: str) -> tuple[str, ...]:
    """The cues that a text claims, each once, sorted."""
    return tuple(sorted({claim.cue for claim in claims_in(text)}))


@functools.cache
def _clauses() -> dict[str, re.Pattern[str]]:
    return {
        cue: re.compile(
            "|".join(rf"\b{_spaced(clause)}\b" for clause in clauses),
            re.IGNORECASE,
        )
        for cue, (clauses, _) in CUE_WORDINGS.items()
    }


def _spaced(clause: str) -> str:
    """A pattern of a clause with any white space between its words."""
    return r"\s+".join(map(re.escape, clause.split()))
