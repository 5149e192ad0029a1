"""Short labelled sentences of the sample corpus without a clip: emotions stated, negated and contrasted.

Explanations say what is present. A verifier that has read nothing else takes "not angry" for anger. So the
reasoning source includes sentences in which the same word means the emotion, its absence or its opposite,
across many subjects and names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from erv.sample.wordings import Sentence

# Emotion -> (adjectives, nouns).
_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "anger": (("angry", "enraged", "furious"), ("anger", "rage")),
    "disgust": (("disgusted", "repelled"), ("disgust", "revulsion")),
    "fear": (("afraid", "scared", "terrified"), ("fear", "terror")),
    "happiness": (("happy", "cheerful", "joyful"), ("joy", "happiness")),
    "sadness": (("sad", "sorrowful"), ("sadness", "sorrow")),
    "surprise": (("surprised", "astonished"), ("surprise", "astonishment")),
    "contempt": (("contemptuous", "scornful"), ("contempt", "scorn")),
    "anxiety": (("anxious", "worried"), ("anxiety", "worry")),
    "helplessness": (("helpless", "lost and helpless"), ("helplessness", "despair")),
    "disappointment": (("disappointed", "let down"), ("disappointment", "a failed hope")),
}
_SUBJECTS = (
    *("The woman", "The man", "The girl", "The boy", "The person", "The child", "The speaker", "She", "He"),
    *("My brother", "Her mother", "The young man", "The old woman", "Someone", "The other one", "Everyone"),
    *("Elena", "James", "Aisha", "Peter", "Yuki", "Carlos", "Ines", "Omar", "Ruth", "David", "Mrs Lee"),
)
_PARTS = ("face", "voice", "look", "smile", "eyes", "tone", "words", "gesture", "mouth", "scene")
_ACTS = (
    *("stands there", "turns around", "cries out", "stares", "stops", "walks away", "answers", "sits down"),
    *("reads a page", "looks at the wall", "opens the bag", "waits in the hall", "calls a friend"),
    *("speaks to the others", "looks out", "drinks some water", "puts on a coat", "closes the book"),
)
_SAID = (
    "{S} is {adj}.",
    "{S} looks {adj}.",
    "{S} seems {adj} now.",
    "{S} is very {adj}.",
    "{S} feels rather {adj}.",
    "How {adj} {s} is!",
    "{S} {act} in {noun}.",
    "{S} {act}, full of {noun}.",
    "{S} is full of {noun}.",
    "There is {noun} in the {part}.",
    "The {part} is full of {noun}.",
    "The {part} tells of {noun}.",
    "{Noun} fills the {part}.",
    "With {noun} {s} {act}.",
)
_DENIED = (
    "{S} is not {adj}.",
    "{S} is not {adj} at all.",
    "{S} is by no means {adj}.",
    "{S} does not look {adj}.",
    "{S} never seems {adj}.",
    "Nobody is {adj} in the {part}.",
    "Nobody here looks {adj}.",
    "There is no {noun} in the {part}.",
    "The {part} shows no {noun}.",
    "I hear no {noun} in it.",
    "{S} {act} without {noun}.",
    "{S} {act} without any {noun}.",
    "The {part} is free of {noun}.",
    "No trace of {noun} is in the {part}.",
)
_CONTRASTED = (
    "{S} is not {other_adj} but {adj}.",
    "{S} looks {adj}, not {other_adj}.",
    "{S} is no longer {other_adj} but {adj}.",
    "It is not {other_noun} but {noun} in the {part}.",
    "The {part} tells of {noun}, not of {other_noun}.",
    "Without {other_noun}, but full of {noun}, {s} {act}.",
)
_PLAIN = ("{S} {act}.", "{S} {act} and {act2}.", "Then {s} {act}.", "{S} is calm and {act}.")
_KINDS = ((_SAID, 0.38), (_DENIED, 0.34), (_CONTRASTED, 0.18), (_PLAIN, 0.1))


def compose_contrasts(count: int, rng: np.random.Generator) -> list[Sentence]:
    """Draws `count` different sentences with their labels (canonical MAFW names), in the order drawn."""
    found: dict[str, tuple[str, ...]] = {}
    while len(found) < count:
        text, labels = _draw(rng)
        found.setdefault(text, labels)
    return list(found.items())


def _draw(rng: np.random.Generator) -> Sentence:
    kind = int(rng.choice(len(_KINDS), p=[share for _, share in _KINDS]))
    patterns = _KINDS[kind][0]
    emotion, other = (list(_WORDS)[int(i)] for i in rng.permutation(len(_WORDS))[:2])
    subject, noun = _pick(_SUBJECTS, rng), _pick(_WORDS[emotion][1], rng)
    act, act2 = (_ACTS[int(i)] for i in rng.permutation(len(_ACTS))[:2])
    text = _pick(patterns, rng).format(
        S=subject,
        s=subject if subject.split()[0] in _NAMES else subject[0].lower() + subject[1:],
        adj=_pick(_WORDS[emotion][0], rng),
        noun=noun,
        Noun=noun[0].upper() + noun[1:],
        other_adj=_pick(_WORDS[other][0], rng),
        other_noun=_pick(_WORDS[other][1], rng),
        part=_pick(_PARTS, rng),
        act=act,
        act2=act2,
    )
    return text, (emotion,) if patterns in (_SAID, _CONTRASTED) else ("neutral",)


_NAMES = frozenset(_SUBJECTS[16:]) | {"Mrs"}


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
