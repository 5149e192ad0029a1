"""What raters do in a study, kept so that nothing that was confirmed is lost and nothing counts twice.

Every call is one transaction: when it returns, its rows are on the disk, and when it raises, there are none.
A call whose answer was lost on the way can be repeated with the same key.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from erv.errors import DataError
from erv.study.answers.connection import Answerbase
from erv.study.answers.raters import (
    Invitation,
    NotInvitedError,
    Rater,
    RefusedError,
    StudyFullError,
    hash_of,
    is_withdrawn,
    now,
    pseudonym,
    rater_of,
    seat,
)
from erv.study.answers.rows import code_of, given_by, row_of_key
from erv.study.answers.tables import (
    UNDO,
    answers,
    completions,
    consents,
    invitations,
    raters,
    sessions,
    sights,
    studies,
    withdrawals,
)
from erv.study.plan import Study

_KEY = re.compile(r"[A-Za-z0-9:_-]{8,64}")
_PARTICIPANT = re.compile(r"[A-Za-z0-9._@:-]{1,128}")
_LONGEST_SECONDS = 7 * 24 * 3600.0

__all__ = ["Database", "Invitation", "NotInvitedError", "Rater", "RefusedError", "StudyFullError"]


class Database:
    """The answers to one study.

    Args:
        base: the open database.
        study: the plan; it is noted with its hash when it is new.
        name_rater: gives a new rater a pseudonym that no other has.
        clock: milliseconds since 1970.
    """

    def __init__(
        self,
        base: Answerbase,
        study: Study,
        *,
        name_rater: Callable[[], str] = pseudonym,
        clock: Callable[[], int] = now,
    ) -> None:
        self._base, self.study = base, study
        self._name_rater, self._clock = name_rater, clock
        with base.writing() as connection:
            known = sa.select(studies.c.study).where(studies.c.study == study.sha256)
            if connection.scalar(known) is None:
                connection.execute(
                    studies.insert().values(study=study.sha256, name=study.name, at_ms=self._clock())
                )

    @classmethod
    def open(cls, url: str, study: Study) -> Database:
        """Opens the database at `url` for a study; raises StackError as `Answerbase` does."""
        return cls(Answerbase(url), study)

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return self._base.name

    def close(self) -> None:
        """Closes all connections."""
        self._base.close()

    def invite(self, count: int = 1, *, days: float = 30.0, panel: str | None = None) -> list[Invitation]:
        """Makes invitations. Only hashes of their tokens are kept.

        Args:
            count: how many.
            days: how long they hold.
            panel: name of the panel whose members all come with the same token; each is told apart by the id
                that the panel gives in the address. None: each invitation is for one person.
        """
        at_ms = self._clock()
        made = [
            Invitation(
                f"i{secrets.token_hex(5)}", secrets.token_urlsafe(24), at_ms + round(days * 86_400_000)
            )
            for _ in range(count)
        ]
        with self._base.writing() as connection:
            for one in made:
                connection.execute(
                    invitations.insert().values(
                        invitation=one.id,
                        study=self.study.sha256,
                        token_hash=hash_of(one.token),
                        panel=panel,
                        expires_ms=one.expires_ms,
                        at_ms=at_ms,
                    )
                )
        return made

    def revoke(self, name: str) -> None:
        """Withdraws an invitation, or a rater: who comes with it is turned away. Answers stay.

        A slot that was not finished becomes free for somebody else.

        Raises:
            DataError: the study has no invitation and no rater of this name.
        """
        with self._base.writing() as connection:
            for table, column in ((invitations, invitations.c.invitation), (raters, raters.c.rater)):
                query = sa.select(column).where(table.c.study == self.study.sha256, column == name)
                if connection.scalar(query) is not None:
                    break
            else:
                raise DataError(
                    f"study {self.study.name}: has no invitation and no rater {name!r};"
                    f" `erv study status {self.study.name}` lists them"
                )
            if not is_withdrawn(connection, name):
                connection.execute(withdrawals.insert().values(withdrawn=name, at_ms=self._clock()))

    def enter(self, token: str, participant: str | None = None) -> Rater:
        """Lets somebody in: the first time with the next free slot, later as the same rater.

        Args:
            token: of the invitation.
            participant: the id that the panel gives its member; only with the invitation of a panel.

        Raises:
            NotInvitedError: the token is unknown, has expired or was withdrawn, or the rater was.
            RefusedError: a panel's member comes without an id, or with one that no panel gives.
            StudyFullError: no slot is free.
        """
        with self._base.writing() as connection:
            row = connection.execute(
                sa.select(invitations).where(
                    invitations.c.token_hash == hash_of(token), invitations.c.study == self.study.sha256
                )
            ).one_or_none()
            if row is None or is_withdrawn(connection, row.invitation):
                raise NotInvitedError("This invitation is not valid, or was withdrawn; ask who sent it.")
            if row.panel is None:
                participant = None
            elif participant is None or not _PARTICIPANT.fullmatch(participant):
                raise RefusedError("The address lacks your id; open the study from the panel's page again.")
            mine = sa.select(raters).where(
                raters.c.invitation == row.invitation, raters.c.participant.is_not_distinct_from(participant)
            )
            known = connection.execute(mine).one_or_none()
            if known is not None:
                return rater_of(connection, self.study, known)
            if row.expires_ms < self._clock():  # who began before may finish
                raise NotInvitedError("This invitation has expired; ask who sent it for a new one.")
            return seat(
                connection,
                self.study,
                row.invitation,
                participant,
                name=self._name_rater(),
                at_ms=self._clock(),
            )

    def session(self, rater: Rater) -> str:
        """A new secret by which a browser is known again as this rater. Only its hash is kept."""
        secret = secrets.token_urlsafe(24)
        with self._base.writing() as connection:
            connection.execute(
                sessions.insert().values(session_hash=hash_of(secret), rater=rater.id, at_ms=self._clock())
            )
        return secret

    def resume(self, session: str) -> Rater:
        """The rater of a session.

        Raises:
            NotInvitedError: there is no such session in this study, or the rater or the invitation was
                withdrawn.
        """
        query = (
            sa.select(raters)
            .join(sessions, sessions.c.rater == raters.c.rater)
            .where(sessions.c.session_hash == hash_of(session), raters.c.study == self.study.sha256)
        )
        with self._base.reading() as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotInvitedError("Your visit is not known here; open the study from its link again.")
            return rater_of(connection, self.study, row)

    def consent(self, rater: Rater, language: str) -> None:
        """Notes that a rater agreed to the consent in this language; the first time counts."""
        if language not in self.study.languages:
            raise DataError(f"study {self.study.name}: has no texts in {language!r}")
        with self._base.writing() as connection:
            if connection.scalar(sa.select(consents.c.rater).where(consents.c.rater == rater.id)) is None:
                connection.execute(
                    consents.insert().values(rater=rater.id, language=language, at_ms=self._clock())
                )

    def consented(self, rater: Rater) -> str | None:
        """The language in which a rater agreed, or None."""
        with self._base.reading() as connection:
            found = connection.scalar(sa.select(consents.c.language).where(consents.c.rater == rater.id))
        return None if found is None else str(found)

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
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise DataError("an answer's key has 8 to 64 letters, digits and the characters : _ -")
        if not isinstance(shown_seconds, int | float) or not 0 <= shown_seconds <= _LONGEST_SECONDS:
            raise DataError(f"item {item}: was shown for {shown_seconds!r} seconds, expected 0 to a week")
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
            connection.execute(
                answers.insert().values(
                    study=self.study.sha256,
                    rater=rater.id,
                    item=item,
                    kind=self.study.item(item).kind,
                    value=text,
                    turn=sum(row.item == item for row in given.rows),
                    shown_ms=round(1000 * shown_seconds),
                    at_ms=self._clock() if at_ms is None else at_ms,
                    key=key,
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
        if not isinstance(shown_seconds, int | float) or not 0 <= shown_seconds <= _LONGEST_SECONDS:
            raise DataError(f"item {item}: was shown for {shown_seconds!r} seconds, expected 0 to a week")
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
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise DataError("an undo's key has 8 to 64 letters, digits and the characters : _ -")
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
            connection.execute(
                answers.insert().values(
                    study=self.study.sha256,
                    rater=rater.id,
                    item=last.item,
                    kind=UNDO,
                    undoes=last.number,
                    turn=last.turn,
                    shown_ms=0,
                    at_ms=self._clock(),
                    key=key,
                )
            )
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

    def imported(self, participant: str) -> Rater:
        """The rater who answers for somebody in another program, made when needed; may answer all items."""
        with self._base.writing() as connection:
            query = sa.select(raters).where(
                raters.c.study == self.study.sha256,
                raters.c.slot.is_(None),
                raters.c.participant == participant,
            )
            row = connection.execute(query).one_or_none()
            name = row.rater if row is not None else self._name_rater()
            if row is None:
                connection.execute(
                    raters.insert().values(
                        rater=name,
                        study=self.study.sha256,
                        turn=0,
                        participant=participant,
                        at_ms=self._clock(),
                    )
                )
        return Rater(name, None, tuple(item.id for item in self.study.items), None)

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
