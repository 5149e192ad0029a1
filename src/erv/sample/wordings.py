"""The words of the sample corpus: explanations that describe cues, in two families of wordings.

Policies and verifier are trained on family `a`. Family `b` is for the judge: other sentence patterns and
mostly other words, sharing only everyday content words, so that the judge is not trained on what it judges. A
sentence about a cue is `{clause about the cue}, {what it tells}.`; every sentence carries its emotion labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from erv.claims import CUE_WORDINGS
from erv.sample.emotions import EXPRESSIONS, emotions_with

Family = Literal["a", "b"]
Sentence = tuple[str, tuple[str, ...]]

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


def emotions_said(sentence: str) -> tuple[str, ...]:
    """The emotions that a sentence speaks of in the wordings of family a, in the order of `TAILS`.

    A cue alone speaks of none here. Exact for sentences of the sample corpus; says nothing of other texts.
    """
    lowered = " ".join(sentence.lower().split())
    return tuple(
        emotion
        for emotion in TAILS
        if any(words in lowered for words in (*TAILS[emotion][0], *_FEELINGS[emotion][0]))
    )


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
