"""Who may come to a study: invitations, and the raters who come with them.

Every call is one transaction, as those of `erv.study.answers.database`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import sqlalchemy as sa

from erv.errors import DataError
from erv.study.answers.connection import Answerbase
from erv.study.answers.raters import (
    Invitation,
    NotInvitedError,
    Rater,
    RefusedError,
    hash_of,
    is_withdrawn,
    now,
    pseudonym,
    rater_of,
    seat,
)
from erv.study.answers.tables import (
    LONGEST_NAME,
    consents,
    invitations,
    raters,
    sessions,
    studies,
    withdrawals,
)
from erv.study.plan import Study

_PARTICIPANT = re.compile(rf"[A-Za-z0-9._@:-]{{1,{LONGEST_NAME}}}")


class Admission:
    """Lets raters in, and turns them away.

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
