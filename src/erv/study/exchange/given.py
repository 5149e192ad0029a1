"""An answer as another program has it, and what programs share."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.study.answers.tables import UNDO
from erv.study.contents import Kind
from erv.study.plan import MEDIA, RATINGS, TIE, Item, Study

FIRST, SECOND = "first", "second"  # how other programs name the explanations of a pair
RATED = {name: f"rating_{name}" for name in RATINGS}  # and what is rated, as emotion is a question of its own


@dataclass(frozen=True)
class Given:
    """An answer from another program.

    Attributes:
        who: the person, as the program names it, with the program's name before it.
        item: id of the item.
        value: as in `Study.check`.
        shown_seconds: how long the item was shown; 0 where the program doesn't say.
        at_ms: when, milliseconds since 1970; None where the program doesn't say.
        key: the same whenever this answer is read.
        where: the file and the place in it, for messages.
    """

    who: str
    item: str
    value: Mapping[str, Any]
    shown_seconds: float
    at_ms: int | None
    key: str
    where: str

    @property
    def user(self) -> str:
        """The person, without the program's name."""
        return self.who.partition(":")[2]


@dataclass(frozen=True)
class Found:
    """What a program's files have.

    Attributes:
        given: the answers.
        incomplete: places of items of which not all questions are answered yet; they are left out.
    """

    given: list[Given]
    incomplete: list[str]


def key_of(*parts: str) -> str:
    """A key for an answer that has no id of its own."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:48]


def latest(study: Study, log: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    """The answers that count, each row of the log with its value."""
    undone = {row["undoes"] for row in log if row["kind"] == UNDO}
    kept = [row for row in log if row["kind"] != UNDO and row["number"] not in undone]
    return [(row, study.check(row["item"], json.loads(row["value"]))) for row in kept]


def chosen(item: Item, preferred: str) -> str:
    """What other programs call a preference: `first`, `second` or `tie`."""
    if preferred == TIE:
        return TIE
    return FIRST if preferred == item.explanations[0].code else SECOND


def preferred(item: Item, choice: object, where: str) -> str:
    """The code of a choice, or `tie`; raises DataError if it is none."""
    codes = dict(zip((FIRST, SECOND), (said.code for said in item.explanations), strict=True)) | {TIE: TIE}
    if not isinstance(choice, str) or choice not in codes:
        raise DataError(f"{where}: preferred is {choice!r}, expected one of {', '.join(codes)}")
    return codes[choice]


def items_of(study: Study, kind: Kind) -> list[Item]:
    """The items of a kind, in the order of the plan."""
    return [item for item in study.items if item.kind == kind]


def data_of(item: Item, study: Study) -> dict[str, str]:
    """What a program shows of an item: nobody's name, and nothing of what is expected.

    As on erv's own pages, answers are shown where they are rated, and not beside the explanations of a pair.
    """
    shown = {"id": item.id, "study": study.sha256, "clip": f"{MEDIA}/{item.clip_id}.mp4"}
    for place, said in zip((FIRST, SECOND), item.explanations, strict=False):
        shown[place] = said.text
        if item.kind == "rating":
            shown[f"{place}_answer"] = said.answer
    return shown


def copy_media(study: Study, folder: Path) -> None:
    """Copies the clips; raises DataError if one is missing."""
    (folder / MEDIA).mkdir()
    for clip in study.media:
        source = study.clip_file(clip)
        if not source.is_file():
            raise DataError(f"{source}: not found; `dvc checkout {study.folder / MEDIA}.dvc`")
        shutil.copyfile(source, folder / MEDIA / source.name)


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises DataError if it can't be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: can't be read as JSON ({' '.join(str(error).split())})") from None
