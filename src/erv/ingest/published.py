"""The counts that the authors of the official sets published, to check a source against."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from erv.settings.ingest import DfewReader, MafwReader, RavdessReader, ReaderSettings

_FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Published:
    """Published counts; an empty mapping or None if unknown.

    Attributes:
        source: who published them.
        clips: listed by the official files.
        classes: clips by label.
        class_count: number of labels that occur.
        folds: clips by fold and split.
        total: clips of the data set, listed or not.
        sizes: other counts, by the names of `Reading.sizes`.
        tested_once: whether each clip is in exactly one test fold.
    """

    source: str
    clips: int
    classes: Mapping[str, int] = field(default_factory=dict)
    class_count: int | None = None
    folds: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    total: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    tested_once: bool = False


def published_counts(settings: ReaderSettings) -> Published | None:
    """The counts published for the set that a reader reads, or None."""
    if isinstance(settings, MafwReader):
        return _one(f"mafw {settings.set} {settings.listing}")
    if isinstance(settings, DfewReader):
        return _one("dfew")
    if isinstance(settings, RavdessReader):
        parts = [_one(f"ravdess {channel}") for channel in settings.channels]
        classes: dict[str, int] = {}
        for part in parts:
            for label, count in part.classes.items():
                classes[label] = classes.get(label, 0) + count
        clips = sum(part.clips for part in parts)
        return Published(parts[0].source, clips, classes, len(classes), {0: {"test": clips}}, clips)
    return None


def _one(name: str) -> Published:
    raw: dict[str, Any] = _load()[name]
    return Published(**raw)


@functools.cache
def _load() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return loaded
