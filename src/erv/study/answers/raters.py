"""Who may answer: raters, invitations, and the slots of a study that they are given."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from erv.errors import DataError
from erv.study.answers.tables import completions, invitations, raters, withdrawals
from erv.study.plan import Study


class RefusedError(DataError):
    """A rater may not do this (now); the message can be shown to the rater."""


class NotInvitedError(RefusedError):
    """The token or session is unknown, has expired, or was withdrawn."""


class StudyFullError(RefusedError):
    """Every slot of the study is taken."""


@dataclass(frozen=True)
class Rater:
    """Somebody who answers.

    Attributes:
        id: a pseudonym, such as `r4f09c2ab1e`; says nothing about the person.
        slot: the slot of the study, or None if the answers were given in another program.
        items: ids of the items that are asked, in order.
        panel: the panel that the rater came from, or None.
    """

    id: str
    slot: str | None
    items: tuple[str, ...]
    panel: str | None


@dataclass(frozen=True)
class Invitation:
    """A new invitation.

    Attributes:
        id: names it, for `Database.revoke`.
        token: the secret that a rater shows. It is not kept and can't be shown again.
        expires_ms: when it ends, milliseconds since 1970.
    """

    id: str
    token: str
    expires_ms: int


def seat(
    connection: Connection, study: Study, invitation: str, participant: str | None, *, name: str, at_ms: int
) -> Rater:
    """Gives the first free slot to a new rater; raises StudyFullError if there is none."""
    slot = _free_slot(connection, study)
    if slot is None and study.look_again():
        slot = _free_slot(connection, study)
    if slot is None:
        raise StudyFullError("All places of this study are taken. Thank you for your interest.")
    free, turn = slot
    connection.execute(
        raters.insert().values(
            rater=name,
            study=study.sha256,
            invitation=invitation,
            slot=free,
            turn=turn,
            participant=participant,
            at_ms=at_ms,
        )
    )
    return rater_of(
        connection, study, connection.execute(sa.select(raters).where(raters.c.rater == name)).one()
    )


def _free_slot(connection: Connection, study: Study) -> tuple[str, int] | None:
    """The first slot that is free, and how many raters had it before; None if all are taken."""
    taken: dict[str, list[Any]] = {}
    query = sa.select(raters).where(raters.c.study == study.sha256, raters.c.slot.is_not(None))
    for row in connection.execute(query.order_by(raters.c.turn)):
        taken.setdefault(row.slot, []).append(row)
    for slot in study.assignments:
        before = taken.get(slot, [])
        if not before or is_given_up(connection, before[-1]):
            return slot, len(before)
    return None


def rater_of(connection: Connection, study: Study, row: Any) -> Rater:
    """The rater of a row.

    Raises:
        NotInvitedError: it or its invitation was withdrawn.
        DataError: its slot is gone from the plan.
    """
    if any(is_withdrawn(connection, name) for name in (row.rater, row.invitation) if name is not None):
        raise NotInvitedError("This invitation is not valid, or was withdrawn; ask who sent it.")
    panel = connection.scalar(
        sa.select(invitations.c.panel).where(invitations.c.invitation == row.invitation)
    )
    return Rater(row.rater, row.slot, study.asked(row.slot), panel)


def is_withdrawn(connection: Connection, name: str) -> bool:
    """Whether an invitation or a rater was withdrawn."""
    query = sa.select(withdrawals.c.withdrawn).where(withdrawals.c.withdrawn == name)
    return connection.scalar(query) is not None


def is_given_up(connection: Connection, row: Any) -> bool:
    """Whether a rater's slot is free for another one: it was withdrawn before it was finished."""
    finished = connection.scalar(sa.select(completions.c.rater).where(completions.c.rater == row.rater))
    names = [name for name in (row.rater, row.invitation) if name is not None]
    return finished is None and any(is_withdrawn(connection, name) for name in names)


def pseudonym() -> str:
    """A new name for a rater."""
    return f"r{secrets.token_hex(5)}"


def hash_of(secret: str) -> str:
    """Of a token. It is random and long, so no salt and no slow hash are needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
