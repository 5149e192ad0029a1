"""Which emotions of the training sets the verifier knows; the others earn nothing from what it reads."""

from __future__ import annotations

from collections.abc import Sequence

from erv.labels import LabelSpace
from erv.rewards.answers import verifier_name


def unknown_emotions(
    labels: Sequence[str], datasets: Sequence[str], rewards: Sequence[str] = ("explanation",)
) -> list[str]:
    """What to know, before training, of emotions that the verifier has no column for.

    Args:
        labels: the verifier's.
        datasets: the training sets.
        rewards: names of those that the verifier gives.

    Returns:
        A sentence per data set that has such emotions.

    Raises:
        DataError: a data set has no label space, or one without a map to MAFW.
    """
    found = []
    for dataset in datasets:
        names = LabelSpace.load(dataset).names
        unknown = [name for name in names if verifier_name(name, dataset, labels) is None]
        if unknown:
            known = [name for name in names if name not in unknown]
            found.append(
                f"{dataset}: the verifier knows {', '.join(known) or 'none of its emotions'}, but not"
                f" {', '.join(unknown)}; completions for such clips get no"
                f" {' or '.join(rewards)} reward"
            )
    return found
