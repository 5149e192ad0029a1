"""The 28 labels of GoEmotions, eleven of which the method's released classifier reuses for the MAFW names.

Source of the index map: the released reward (`<answer>` name -> output). Source of the order: GoEmotions
(Demszky et al., 2020).
"""

from __future__ import annotations

from collections.abc import Mapping

LABELS = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
)
MAFW_NAMES = {
    "anger": "anger",
    "disappointment": "disappointment",
    "disapproval": "contempt",
    "disgust": "disgust",
    "fear": "fear",
    "grief": "helplessness",
    "joy": "happiness",
    "nervousness": "anxiety",
    "neutral": "neutral",
    "sadness": "sadness",
    "surprise": "surprise",
}


def column_names(id2label: Mapping[int, str]) -> tuple[str, ...] | None:
    """The labels of a classifier's outputs, MAFW names where the released reward maps them.

    Args:
        id2label: of its configuration; names of GoEmotions in any order, or `LABEL_0` to `LABEL_27`, assumed
            to be in GoEmotions' own order.

    Returns:
        28 names, or None for a classifier of other labels.
    """
    names = [str(id2label[index]).lower() for index in sorted(id2label)]
    if names == [f"label_{index}" for index in range(len(LABELS))]:
        names = list(LABELS)
    if sorted(names) != sorted(LABELS):
        return None
    return tuple(MAFW_NAMES.get(name, name) for name in names)
