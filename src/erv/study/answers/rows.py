"""What a rater has answered, as rows of the database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from erv.errors import DataError
from erv.study.answers.tables import UNDO, answers, completions
from erv.study.plan import Study

_KEY = re.compile(r"[A-Za-z0-9:_-]{8,64}")
_LONGEST_SECONDS = 7 * 24 * 3600.0


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


def check_key(key: object) -> None:
    """Raises DataError unless this can be the key of an answer or undo."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise DataError("the key of an answer has 8 to 64 letters, digits and the characters : _ -")


def check_seconds(item: str, seconds: object) -> None:
    """Raises DataError unless an item can have been shown for so long."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST_SECONDS:
        raise DataError(f"item {item}: was shown for {seconds!r} seconds, expected 0 to a week")


def answer_row(
    study: Study, rater: str, item: str, text: str, *, turn: int, seconds: float, at_ms: int, key: str
) -> sa.Insert:
    """The row of an answer.

    Args:
        study: the plan.
        rater: the pseudonym.
        item: id of the item.
        text: the value as JSON.
        turn: how many answers to the item its rater took back before.
        seconds: for which it was shown.
        at_ms: when, milliseconds since 1970.
        key: of the answer.
    """
    return answers.insert().values(
        study=study.sha256,
        rater=rater,
        item=item,
        kind=study.item(item).kind,
        value=text,
        turn=turn,
        shown_ms=round(1000 * seconds),
        at_ms=at_ms,
        key=key,
    )


def undo_row(row: Any, *, at_ms: int, key: str) -> sa.Insert:
    """The row that takes an answer back.

    Args:
        row: of the answer.
        at_ms: when, milliseconds since 1970.
        key: of the undo.
    """
    return answers.insert().values(
        study=row.study,
        rater=row.rater,
        item=row.item,
        kind=UNDO,
        undoes=row.number,
        turn=row.turn,
        shown_ms=0,
        at_ms=at_ms,
        key=key,
    )
