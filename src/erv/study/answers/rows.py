"""What a rater has answered, as rows of the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from erv.study.answers.tables import UNDO, answers, completions


@dataclass(frozen=True)
class Given:
    """The answers of a rater.

    Attributes:
        rows: all of them, by number, without undos.
        undone: numbers of those that were taken back.
    """

    rows: Sequence[Any]
    undone: frozenset[int]

    @property
    def items(self) -> list[str]:
        """Ids of the items that are answered, in the order of the answers."""
        return [row.item for row in self.rows if row.number not in self.undone]


def given_by(connection: Connection, rater: str) -> Given:
    """The answers of a rater."""
    rows = connection.execute(
        sa.select(answers).where(answers.c.rater == rater).order_by(answers.c.number)
    ).all()
    return Given(
        [row for row in rows if row.kind != UNDO],
        frozenset(row.undoes for row in rows if row.kind == UNDO),
    )


def row_of_key(connection: Connection, rater: str, key: str) -> Any:
    """The answer or undo that was sent with this key, or None."""
    query = sa.select(answers).where(answers.c.rater == rater, answers.c.key == key)
    return connection.execute(query).one_or_none()


def code_of(connection: Connection, rater: str) -> str | None:
    """The completion code of a rater who has finished, or None."""
    found = connection.scalar(sa.select(completions.c.code).where(completions.c.rater == rater))
    return None if found is None else str(found)
