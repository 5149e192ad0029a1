"""Feedback as a reasoning set for the next round: clips with the explanations that people stand behind.

The folder has the layout of EMER v1 (`EMER.csv` and the clips), which the reader `reasoning` reads. A row is
an answer whose clip was kept, and that somebody approved (thumb up) or corrected; corrections replace what
the policy said. To be the better one of two is no approval, as both may be wrong. Where two answers about a
clip remain, the one that was judged last counts.
"""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.app.feedback import CLIPS, latest
from erv.errors import DataError
from erv.files import whole_folder

TABLE = "EMER.csv"
_COLUMNS = ("names", "emotions", "subtitles", "reasons")


@dataclass(frozen=True)
class Exported:
    """What was written: rows, and answers with feedback that made none, by the reason."""

    rows: int
    without_clip: int
    without_text: int


def export(folder: Path, output: Path) -> Exported:
    """Writes the set, whole or not at all; equal feedback gives equal bytes. Git is told to ignore it.

    Args:
        folder: of the journal.
        output: a folder that is not there yet, or is empty.

    Raises:
        DataError: `output` has something in it, a kept clip is gone, or there is nothing to export.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: is there already; name a folder that is not, or empty it")
    rows: dict[str, tuple[str, str, str, str]] = {}
    without_clip = without_text = 0
    for line in latest(folder):
        text = _stood_behind(line)
        kept = line["clip"]["kept"]
        if text is None:
            without_text += 1
        elif kept is None:
            without_clip += 1
        else:
            rows[kept] = (kept, text[0], line["clip"]["subtitle"] or "", text[1])
    if not rows:
        raise DataError(
            f"{folder}: no feedback to export: {without_clip} answers whose clip was not kept, {without_text}"
            " without approval or correction; tick keep, and say what is right"
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows[kept] for kept in sorted(rows))
    with whole_folder(output) as whole:
        # It has clips of people, which seldom may be passed on.
        (whole / ".gitignore").write_text("*\n", encoding="utf-8")
        (whole / TABLE).write_text(table.getvalue(), encoding="utf-8")
        (whole / "video").mkdir()
        for kept in sorted(rows):
            source = folder / CLIPS / kept
            if not source.is_file():
                raise DataError(
                    f"{source}: a kept clip is gone; restore it, or take its lines out of the journal"
                )
            shutil.copyfile(source, whole / "video" / kept)
    return Exported(len(rows), without_clip, without_text)


def _stood_behind(line: dict[str, Any]) -> tuple[str, str] | None:
    """Emotion and explanation that somebody stands behind; None if there are none.

    Whoever corrects the emotion alone doesn't stand behind an explanation that led to another.
    """
    said, answer = line["said"], line["answer"]
    approved = said["thumb"] == "up"
    # Journals of an older erv have no name.
    corrected = said["emotion"] not in (None, answer["emotion"], answer.get("name"))
    emotion = said["emotion"] or (answer["emotion"] if approved or said["explanation"] else None)
    explanation = said["explanation"] or (answer["explanation"] if approved and not corrected else None)
    return None if not emotion or not explanation else (emotion, explanation)
