"""What every format of reasoning data boils down to: a clip, its label and its explanation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from erv.ingest.readers.places import stem as without_suffix


@dataclass(frozen=True, slots=True)
class Explained:
    """One explanation from a table.

    Attributes:
        video: name or path of its video as written, with or without a suffix.
        raw: the label as written; empty if there is none.
        explanation: text; empty if there is none.
        where: file and line, item or key.
        label_from: where the label is, if elsewhere.
        silent: why there is no explanation, if known.
        fault: why it can't be used although it has a label and an explanation.
        subtitle: what is said in the clip, if the table has it.
    """

    video: str
    raw: str
    explanation: str
    where: str
    label_from: str | None = None
    silent: str | None = None
    fault: str | None = None
    subtitle: str | None = None

    @property
    def name(self) -> str:
        """The video's name without folders and suffix."""
        return stem(self.video)


def stem(video: str) -> str:
    """The name of a video without folders (with either slash) and without the suffix."""
    return without_suffix(PurePosixPath(video.strip().replace("\\", "/")).name)
