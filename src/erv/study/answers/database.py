"""What raters answer, kept so that nothing that was confirmed is lost and nothing counts twice.

Every call is one transaction: when it returns, its rows are on the disk, and when it raises, there are none.
A call whose answer was lost on the way can be repeated with the same key.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from erv.errors import DataError
from erv.study.answers.admission import Admission
from erv.study.answers.connection import Answerbase
from erv.study.answers.raters import (
    Invitation,
    NotInvitedError,
    Rater,
    RefusedError,
    StudyFullError,
    is_withdrawn,
)
from erv.study.answers.rows import (
    answer_row,
    check_key,
    check_seconds,
    code_of,
    given_by,
    row_of_key,
    undo_row,
)
from erv.study.answers.tables import UNDO, answers, completions, raters, sights
from erv.study.plan import Study

__all__ = ["Database", "Invitation", "NotInvitedError", "Rater", "RefusedError", "StudyFullError"]


class Database(Admission):
    """The answers to one study, and who may give them; arguments as for `Admission`."""

    @classmethod
    def open(cls, url: str, study: Study) -> Database:
        """Opens the database at `url` for a study; raises StackError as `Answerbase` does."""
        return cls(Answerbase(url), study)

    def add(
        self, rater: Rater, item: str, value: Any, shown_seconds: float, key: str, *, at_ms: int | None = None
    ) -> bool:
        """Keeps an answer.

        Args:
            rater: who answers.
            item: id of the item.
            value: as in `Study.check`.
            shown_seconds: how long the item was shown.
            key: chosen by the client for this answer, 8 to 64 letters, digits and `:_-`. With the same key
                the same answer can be sent again.
            at_ms: when it was given, of an answer from another program; now if left out.

        Returns:
            Whether it is new; False for one that was sent before.

        Raises:
            RefusedError: the item is not this rater's, was answered before, the study is finished, or the key
                was used for another answer.
            DataError: the value, time or key is none.
        """
        check_key(key)
        check_seconds(item, shown_seconds)
        if item not in rater.items:
            raise RefusedError(f"Item {item} is not one of yours.")
        text = json.dumps(self.study.check(item, value), sort_keys=True)
        with self._base.writing() as connection:
            before = row_of_key(connection, rater.id, key)
            if before is not None:
                if (before.item, before.value) != (item, text):
                    raise RefusedError(f"Another answer was sent with the key {key}.")
                return False
            self._check_open(connection, rater)
            given = given_by(connection, rater.id)
            if item in given.items:
                raise RefusedError(f"Item {item} was answered already; undo that answer first.")
            at_ms = self._clock() if at_ms is None else at_ms
            turn = sum(row.item == item for row in given.rows)
            connection.execute(
                answer_row(
                    self.study, rater.id, item, text, turn=turn, seconds=shown_seconds, at_ms=at_ms, key=key
                )
            )
        return True

    def see(self, rater: Rater, item: str, emotion: str, shown_seconds: float) -> None:
        """Notes the emotion that a rater sees in an item's clip; only then may explanations be shown.

        The first choice counts: whoever has seen the explanations can't change it.

        Args:
            rater: who looks.
            item: id of the item.
            emotion: one of the study's.
            shown_seconds: how long the clip was shown until then.

        Raises:
            RefusedError: the item is not this rater's, or the study is finished.
            DataError: the emotion or the time is none.
        """
        if item not in rater.items:
            raise RefusedError(f"Item {item} is not one of yours.")
        if emotion not in self.study.emotions:
            raise DataError(f"item {item}: emotion is none of {', '.join(self.study.emotions)}")
        check_seconds(item, shown_seconds)
        mine = sa.select(sights.c.item).where(sights.c.rater == rater.id, sights.c.item == item)
        with self._base.writing() as connection:
            if connection.scalar(mine) is None:
                self._check_open(connection, rater)
                shown_ms = round(1000 * shown_seconds)
                connection.execute(
                    sights.insert().values(
                        rater=rater.id, item=item, emotion=emotion, shown_ms=shown_ms, at_ms=self._clock()
                    )
                )

    def seen(self, rater: Rater, item: str) -> tuple[str, float] | None:
        """The emotion that a rater saw in an item's clip, and after how many seconds; None if still open."""
        mine = sa.select(sights.c.emotion, sights.c.shown_ms).where(
            sights.c.rater == rater.id, sights.c.item == item
        )
        with self._base.reading() as connection:
            row = connection.execute(mine).one_or_none()
        return None if row is None else (str(row.emotion), row.shown_ms / 1000)

    def undo(self, rater: Rater, key: str | None = None) -> str | None:
        """Takes back the rater's last answer, which stays in the database, by a row of its own.

        Args:
            rater: whose answer.
            key: as in `add`, so that a resend takes back no second answer; a new one if left out.

        Returns:
            The id of the item that is open again; None if there is nothing to undo.

        Raises:
            RefusedError: the study is finished.
        """
        key = key if key is not None else secrets.token_urlsafe(16)
        check_key(key)
        with self._base.writing() as connection:
            before = row_of_key(connection, rater.id, key)
            if before is not None:
                if before.kind != UNDO:
                    raise RefusedError(f"An answer was sent with the key {key}.")
                return str(before.item)
            self._check_open(connection, rater)
            given = given_by(connection, rater.id)
            last = next((row for row in reversed(given.rows) if row.number not in given.undone), None)
            if last is None:
                return None
            connection.execute(undo_row(last, at_ms=self._clock(), key=key))
        return str(last.item)

    def done(self, rater: Rater) -> list[str]:
        """Ids of the items that the rater has answered, in the order of the answers."""
        with self._base.reading() as connection:
            given = given_by(connection, rater.id)
        return given.items

    def complete(self, rater: Rater) -> str:
        """Ends the study for a rater; after that nothing can be changed.

        Returns:
            The panel's completion code, or without a panel one of the rater's own. The same at each call.

        Raises:
            RefusedError: items are open.
        """
        with self._base.writing() as connection:
            code = code_of(connection, rater.id)
            if code is not None:
                return code
            given = given_by(connection, rater.id)
            answered = set(given.items)
            if left := [item for item in rater.items if item not in answered]:
                raise RefusedError(f"{len(left)} items are still open.")
            panel = self.study.panel
            code = panel.completion_code if panel is not None else secrets.token_hex(4).upper()
            connection.execute(completions.insert().values(rater=rater.id, code=code, at_ms=self._clock()))
        return code

    def is_complete(self, rater: Rater) -> bool:
        """Whether `complete` was called."""
        with self._base.reading() as connection:
            return code_of(connection, rater.id) is not None

    def log(self) -> list[Mapping[str, Any]]:
        """All answers and undos of the study by number: the columns of the table, and the rater's `slot`."""
        query = (
            sa.select(answers, raters.c.slot)
            .join(raters, raters.c.rater == answers.c.rater)
            .where(answers.c.study == self.study.sha256)
            .order_by(answers.c.number)
        )
        with self._base.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    @staticmethod
    def _check_open(connection: Connection, rater: Rater) -> None:
        if code_of(connection, rater.id) is not None:
            raise RefusedError("You have finished this study; its answers can't be changed any more.")
        invitation = connection.scalar(sa.select(raters.c.invitation).where(raters.c.rater == rater.id))
        if any(is_withdrawn(connection, name) for name in (rater.id, invitation) if name is not None):
            raise NotInvitedError("This invitation was withdrawn; ask who sent it.")
