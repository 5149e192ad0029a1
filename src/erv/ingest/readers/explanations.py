"""What every format of reasoning data boils down to: a clip, its label and its explanation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_SUFFIX = re.compile(r"\.(?:mp4|avi|mkv|mov|webm)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Explained:
    """One explanation from a table.

    Attributes:
        name: stem of its video.
        raw: the label as written; empty if there is none.
        explanation: text; empty if there is none.
        where: file and line, item or key.
        label_from: where the label is, if elsewhere.
        silent: why there is no explanation, if known.
    """

    name: str
    raw: str
    explanation: str
    where: str
    label_from: str | None = None
    silent: str | None = None


def stem(video: str) -> str:
    """The name of a video without folders (with either slash) and without the suffix."""
    return _SUFFIX.sub("", PurePosixPath(video.strip().replace("\\", "/")).name)
