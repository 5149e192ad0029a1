"""What the verifier reads in single sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from erv.verifier.protocol import as_array, sentence_labels, thresholds_of, unreadable_by

if TYPE_CHECKING:
    from erv.verifier.protocol import Verifier

_DIGITS = 6


def verdicts(verifier: Verifier, sentences: Sequence[str]) -> list[tuple[dict[str, float], tuple[str, ...]]]:
    """Per sentence the probability of each emotion, and the emotions that count under the strict reward.

    Args:
        verifier: reads them, all in one call.
        sentences: of explanations.
    """
    texts = list(sentences)
    rows = as_array(verifier.predict(texts))
    labels = sentence_labels(rows, verifier.labels, thresholds_of(verifier))
    return [
        (
            {name: round(float(value), _DIGITS) for name, value in zip(verifier.labels, row, strict=True)},
            () if foreign else tuple(names),
        )
        for row, names, foreign in zip(rows, labels, unreadable_by(verifier, texts), strict=True)
    ]
