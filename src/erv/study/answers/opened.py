"""Opens a study and its database, for commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from erv.study.answers.connection import Answerbase, database_url
from erv.study.answers.database import Database
from erv.study.plan import Study, folder_of, read_study


@contextmanager
def opened(name: str, workspace: Path) -> Iterator[tuple[Study, Answerbase, Database]]:
    """The study in `studies/NAME` and the database of this workspace.

    Args:
        name: of the study.
        workspace: whose database it is, where no other is named.

    Raises:
        SettingsError: it is no name.
        DataError: there is no such study, or it is damaged.
        StackError: the database can't be used.
    """
    study = read_study(folder_of(name))
    base = Answerbase(database_url(workspace))
    try:
        yield study, base, Database(base, study)
    finally:
        base.close()
