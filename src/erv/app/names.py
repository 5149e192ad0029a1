"""What a version knows by name: the data sets that it was tested with, and the emotion of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from erv.answering.spaces import spaces_of
from erv.labels import LabelSpace

_OF_THE_VERIFIER = "mafw"  # for bundles that don't say what they were tested with


def datasets_of(bundle: Path) -> list[str]:
    """The data sets that a version was tested with, by name; empty if it doesn't say."""
    return sorted(_tested(bundle) or {})


def name_of(bundle: Path, dataset: str | None, answer: str | None) -> str | None:
    """The canonical name that an answer means, such as `happiness` for `Happiness.`; pages offer these.

    Args:
        bundle: folder of the bundle.
        dataset: that the clip is like, if that was said; for any other, the name is looked up in the label
            spaces of all data sets that the version was tested with.
        answer: as the policy wrote it.

    Returns:
        None if the answer is in none of the spaces.

    Raises:
        RegistryError: the code that answers lacks a label space of the bundle.
    """
    spaces = spaces_of(bundle, _tested(bundle))
    looked_in = [spaces[dataset]] if dataset in spaces else [*spaces.values()] or [_OF_THE_VERIFIER]
    found = (LabelSpace.load(space).normalize(answer) for space in looked_in)
    return next((name for name in found if name is not None), None)


def _tested(bundle: Path) -> Mapping[str, str | None] | None:
    serving = json.loads((bundle / "serving.json").read_text(encoding="utf-8"))
    found: Mapping[str, str | None] | None = serving.get("datasets")
    return found
