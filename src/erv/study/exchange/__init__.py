"""Studies for other programs that ask people, and their answers for a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.files import whole_folder, write_text
from erv.study.answers.rows import check_key, check_seconds
from erv.study.answers.tables import LONGEST_NAME
from erv.study.exchange.given import Found
from erv.study.plan import Study

PROGRAMS = ("potato", "label-studio")


def write_project(program: str, study: Study, log: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Writes a study as a project of another program, and the answers so far in its format.

    Policies stay blinded: what is written is what raters may see.

    Args:
        program: one of `PROGRAMS`.
        study: the plan; its clips are copied, so git is told to ignore the folder.
        log: from `Database.log`.
        folder: a new or empty one.

    Returns:
        What was written and how to go on, in a sentence.

    Raises:
        DataError: the folder is there and not empty, or a clip is missing.
    """
    from erv.study.exchange import label_studio, potato

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is not empty; name a folder that doesn't exist yet")
    with whole_folder(folder) as work:
        write = potato.write if program == "potato" else label_studio.write
        said = write(study, log, work)
        # It has clips of people, whose licence seldom lets anybody pass them on.
        write_text("*\n", work / ".gitignore")
    return f"{folder} (git ignores it): {said}"


def read_project(program: str, study: Study, path: Path) -> Found:
    """Reads answers that were given in another program, and checks all of them.

    Raises:
        DataError: the path is not what the program writes, or an answer is none to this study.
    """
    from erv.study.exchange import label_studio, potato

    read = potato.read if program == "potato" else label_studio.read
    found = read(study, path)
    for one in found.given:
        try:
            study.check(one.item, one.value)
            check_seconds(one.item, one.shown_seconds)
            check_key(one.key)
        except DataError as error:
            raise DataError(f"{one.where}: {error}") from None
        # The database has room for so much, and PostgreSQL takes no zero bytes.
        if not one.user or len(one.who) > LONGEST_NAME or not one.who.isprintable():
            raise DataError(
                f"{one.where}: the user's name {one.user[:40]!r} can't be kept, expected at most"
                f" {LONGEST_NAME - len(one.who) + len(one.user)} printable characters; rename the user"
            )
    return found
