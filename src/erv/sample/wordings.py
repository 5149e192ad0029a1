"""The words of the sample corpus: explanations that describe cues, in two families of wordings.

Policies and verifier are trained on family `a`. Family `b` is for the judge: other sentence patterns and
mostly other words, sharing only everyday content words, so that the judge is not trained on what it judges. A
sentence about a cue is `{clause about the cue}, {what it tells}.`; every sentence carries its emotion labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from erv.sample.emotions import EXPRESSIONS, emotions_with

Family = Literal["a", "b"]
Sentence = tuple[str, tuple[str, ...]]

# Cue -> (clauses of family a, noun phrases of family b).
CUE_WORDINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
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

# Emotion -> (what a cue tells in family a, in family b).
TAILS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "anger": (
        ("as if ready to shout in anger", "burning with rage", "like an angry threat"),
        ("typical of anger or fury", "as in a person about to shout", "so someone here is angry or enraged"),
    ),
    "disgust": (
        ("as if something smelled rotten", "full of disgust", "turning away in revulsion"),
        (
            "typical of disgust or aversion",
            "as in a person near a rotten smell",
            "so something here is disgusting and repellent",
        ),
    ),
    "fear": (
        ("as if danger were near", "full of fear", "frozen in terror"),
        ("typical of fear or fright", "as in a person in danger", "so someone here is afraid or scared"),
    ),
    "happiness": (
        ("full of joy", "as if hearing good news", "warm and cheerful"),
        (
            "typical of joy or delight",
            "as in a person with good news",
            "so someone here is happy and cheerful",
        ),
    ),
    "neutral": (
        ("with no emotion in it", "calm and ordinary", "simply relaxed"),
        ("typical of a calm mood", "as in a relaxed and neutral person", "so there is no emotion to report"),
    ),
    "sadness": (
        ("close to tears", "full of sorrow", "heavy with sadness"),
        ("typical of sadness or sorrow", "as in a person near tears", "so someone here is sad"),
    ),
    "surprise": (
        ("as if something unexpected happened", "full of surprise", "in astonishment"),
        (
            "typical of surprise or amazement",
            "as in a person facing the unexpected",
            "so someone here is astonished",
        ),
    ),
    "contempt": (
        ("looking down on the other", "full of scorn", "cold with contempt"),
        (
            "typical of contempt or scorn",
            "as in a person looking down on another",
            "so someone here feels superior",
        ),
    ),
    "anxiety": (
        ("restless with worry", "full of anxiety", "as if waiting for bad news"),
        (
            "typical of anxiety or worry",
            "as in a person waiting restless",
            "so someone here is nervous and worried",
        ),
    ),
    "helplessness": (
        ("as if there were no way out", "full of helplessness", "begging for help"),
        (
            "typical of helplessness or despair",
            "as in a person with no way out",
            "so someone here needs help",
        ),
    ),
    "disappointment": (
        ("as if a hope had failed", "full of disappointment", "let down once more"),
        (
            "typical of disappointment or regret",
            "as in a person whose hope failed",
            "so someone here was let down",
        ),
    ),
}

# Emotion -> (words of a closing sentence in family a, in family b).
_FEELINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "anger": (("angry", "enraged"), ("anger", "fury")),
    "disgust": (("disgusted", "repelled"), ("disgust", "aversion")),
    "fear": (("afraid", "scared"), ("fear", "fright")),
    "happiness": (("happy", "cheerful"), ("joy", "happiness")),
    "neutral": (("calm and neutral", "relaxed and neutral"), ("a neutral mood", "calm")),
    "sadness": (("sad", "sorrowful"), ("sadness", "sorrow")),
    "surprise": (("surprised", "astonished"), ("surprise", "amazement")),
    "contempt": (("contemptuous", "scornful"), ("contempt", "scorn")),
    "anxiety": (("anxious", "worried"), ("anxiety", "worry")),
    "helplessness": (("helpless", "lost and helpless"), ("helplessness", "despair")),
    "disappointment": (("disappointed", "let down"), ("disappointment", "regret")),
}

_CLOSINGS = {
    "a": (
        "Altogether the person seems {}.",
        "The person must feel {}.",
        "On the whole this person looks {}.",
    ),
    "b": ("My verdict would be {}.", "It adds up to {}.", "The best reading is {}."),
}
_LEADS = ("I notice {}, {}.", "We observe {}, {}.", "Worth noting is {}, {}.")
_FILLERS = {
    "a": (
        "The scene is a plain room with soft light.",
        "The camera stays close to the head and shoulders.",
        "One person sits in front of a blurred wall.",
        "The clothes are simple and of one colour.",
        "The head turns a little from time to time.",
        "The shot is short and has no cut.",
    ),
    "b": (
        "This recording has a single speaker in view.",
        "Behind the speaker we find only a soft background.",
        "The picture is framed as a portrait.",
        "Nothing else enters the frame during the recording.",
    ),
}

# A bare sentence names the cue alone; it then carries every emotion that has the cue (two at most).
_BARE_SHARE = 0.15
_SECOND_CUE_SHARE = 0.3


def compose_explanation(
    emotion: str,
    rng: np.random.Generator,
    family: Family = "a",
    *,
    face_cues: Sequence[str] | None = None,
    voice_cues: Sequence[str] | None = None,
    fillers: int = 1,
) -> list[Sentence]:
    """Draws an explanation of one emotion.

    Args:
        emotion: a canonical MAFW name; what every emotional sentence speaks of.
        rng: source of all choices.
        family: `a` for policies and verifier, `b` for the judge.
        face_cues: cues to speak of; None for all of the emotion's, empty to say nothing about the face.
        voice_cues: the same for the voice.
        fillers: number of leading sentences about the setting, labelled neutral.

    Returns:
        Sentences in order with their labels (canonical MAFW names); joined by spaces they are the
        explanation.
    """
    shown = EXPRESSIONS[emotion]
    picks = [_FILLERS[family][int(i)] for i in rng.permutation(len(_FILLERS[family]))[:fillers]]
    sentences: list[Sentence] = [(text, ("neutral",)) for text in picks]
    order, said = rng.permutation(3), 0  # so that an explanation does not repeat itself
    for cues in (
        shown.face if face_cues is None else tuple(face_cues),
        shown.voice if voice_cues is None else tuple(voice_cues),
    ):
        if cues:
            count = 2 if len(cues) > 1 and rng.random() < _SECOND_CUE_SHARE else 1
            chosen = sorted(rng.permutation(len(cues))[:count])
            for index in chosen:
                sentences.append(
                    cue_sentence(emotion, cues[int(index)], rng, family, tail=int(order[said % 3]))
                )
                said += 1
    closing = _pick(_CLOSINGS[family], rng).format(_pick(_FEELINGS[emotion][family == "b"], rng))
    return [*sentences, (closing, (emotion,))]


def cue_sentence(
    emotion: str, cue: str, rng: np.random.Generator, family: Family = "a", *, tail: int = 0
) -> Sentence:
    """Draws a sentence that reads `cue` as a sign of `emotion` in words `tail` (0..2), and its labels."""
    clause = _pick(CUE_WORDINGS[cue][family == "b"], rng)
    tail_words = TAILS[emotion][family == "b"][tail]
    bare, lead = rng.random() < _BARE_SHARE, _pick(_LEADS, rng)
    if family == "b":
        return lead.format(clause, tail_words), (emotion,)
    capital = clause[0].upper() + clause[1:]
    owners = emotions_with(cue)
    if bare and emotion in owners and len(owners) <= 2:
        return f"{capital}.", owners
    return f"{capital}, {tail_words}.", (emotion,)


def find_cues(text: str) -> tuple[str, ...]:
    """The cues that a text speaks of in the wordings of family a, sorted.

    What a report checks against the cues truly present in a clip.
    """
    lowered = " ".join(text.lower().split())
    found = (
        cue for cue, (clauses, _) in CUE_WORDINGS.items() if any(clause in lowered for clause in clauses)
    )
    return tuple(sorted(found))


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
