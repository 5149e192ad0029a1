"""The interface of a verifier, and how its probabilities become the labels of a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from erv.labels import NEUTRAL

if TYPE_CHECKING:
    import numpy as np

DEFAULT_THRESHOLD = 0.1
MAX_LABELS_PER_SENTENCE = 2


class Verifier(Protocol):
    """Anything that names the emotions of sentences.

    `thresholds` is optional: a float per label, or a mapping by label; 0.1 for each without it. So is
    `unreadable(sentences)`, a bool per sentence: whether it is outside what the verifier can read.
    """

    @property
    def labels(self) -> Sequence[str]:
        """A name per column."""

    def predict(self, sentences: list[str]) -> Any:
        """Independent probabilities, float tensor [len(sentences), len(labels)]."""


def thresholds_of(verifier: Verifier) -> np.ndarray:
    """Per column the probability above which a sentence has the label, float32 [len(labels)]."""
    import numpy as np

    count = len(verifier.labels)
    declared = getattr(verifier, "thresholds", None)
    if declared is None:
        return np.full(count, DEFAULT_THRESHOLD, dtype=np.float32)
    if isinstance(declared, dict):
        declared = [declared[label] for label in verifier.labels]
    limits = as_array(declared)
    return np.broadcast_to(limits, (count,)) if limits.ndim == 0 else limits


def unreadable_by(verifier: Verifier | None, sentences: Sequence[str]) -> list[bool]:
    """Whether each sentence is outside what the verifier can read; never, if it doesn't say."""
    find = getattr(verifier, "unreadable", None)
    return [False] * len(sentences) if find is None else list(find(sentences))


def sentence_labels(probabilities: Any, labels: Sequence[str], thresholds: Any) -> list[list[str]]:
    """The labels of each sentence as the strict explanation reward reads them, most probable first.

    A sentence in which no label is above its threshold has none.

    Args:
        probabilities: float [n, len(labels)].
        labels: a name per column.
        thresholds: float [len(labels)].
    """
    limits = as_array(thresholds)
    return [strict_label_set(row, limits, list(labels)) for row in as_array(probabilities)]


def strict_label_set(row: np.ndarray, thresholds: np.ndarray, labels: list[str]) -> list[str]:
    """The labels of one sentence: at most two, the most probable first; `neutral` only on its own."""
    order = (-row).argsort(kind="stable")
    chosen = [labels[index] for index in order if row[index] > thresholds[index]]
    if chosen[:1] == [NEUTRAL]:
        return [NEUTRAL]
    return [label for label in chosen if label != NEUTRAL][:MAX_LABELS_PER_SENTENCE]


def as_array(values: Any) -> np.ndarray:
    """float32 array of a tensor on any device, an array or a list: the precision of the thresholds."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)
