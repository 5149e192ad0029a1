"""Reads the answer of a completion and the truth of a clip for the rewards.

Either strictly, through the label spaces, or as the method's released code does (`official_...`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from erv.prompts import tagged

if TYPE_CHECKING:
    from erv.labels import LabelSpace


def mafw_name(text: str, dataset: str | None) -> str | None:
    """A data set's label as a name in the MAFW space, which verifiers and judges use, or None."""
    mafw = _space("mafw")
    space = mafw if dataset is None else _space(dataset)
    name = space.normalize(text)
    return None if name is None else space.to(mafw)(name)


def verifier_name(text: str, dataset: str | None, labels: Sequence[str]) -> str | None:
    """The column of a verifier for a data set's label: its MAFW name, or else its own name.

    Args:
        text: the label.
        dataset: its data set; None for MAFW.
        labels: the verifier's columns.

    Returns:
        One of `labels`, or None if it has no column for that emotion.

    Raises:
        DataError: the data set has no label space, or one without a map to MAFW.
    """
    names = (mafw_name(text, dataset), normalize(text, dataset or "mafw"))
    return next((name for name in names if name in labels), None)


def official_answer(text: str) -> str:
    """The words of an answer or a truth as the released code finds them: inside tags on one line, or all."""
    blocks = (block for line in text.split("\n") for block in tagged(line, "answer"))
    return next(blocks, text).strip()


def bare(truth: str) -> str:
    """The words of a truth, with or without `<answer>` around them."""
    return next(iter(tagged(truth, "answer")), truth).strip()


def normalize(text: str, dataset: str | None) -> str | None:
    """A label's canonical name in its data set's space, or None; without a data set, the words themselves."""
    if dataset is None:
        return " ".join(text.casefold().split()) or None
    return _space(dataset).normalize(text)


def _space(name: str) -> LabelSpace:
    from erv.labels import LabelSpace

    return LabelSpace.load(name)


OFFICIAL_NAMES = frozenset(
    [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
        "contempt",
        "anxiety",
        "helplessness",
        "disappointment",
    ]
)
_OFFICIAL_MAFW = {
    "angry": "anger",
    "sad": "sadness",
    "anxious": "anxiety",
    "helpless": "helplessness",
    "disappointed": "disappointment",
}


def official_normalize(text: str, dataset: str | None) -> str:
    """The released code's spelling rules, including substring matches; unknown words pass unchanged."""
    if dataset == "mafw_compound":  # the released code looks for MAFW in the path
        dataset = "mafw"
    if dataset not in ("mafw", "dfew"):
        return text
    text = text.lower().replace("\n", "")
    if dataset == "dfew":
        if text == "sadness":
            return "sad"
        if "happiness" in text:
            return "happy"
        return "angry" if "anger" in text else text
    if text in _OFFICIAL_MAFW:
        return _OFFICIAL_MAFW[text]
    if "happy" in text:
        return "happiness"
    return "contempt" if "contemptuous" in text else text
