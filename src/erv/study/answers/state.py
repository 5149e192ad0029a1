"""How far a study is: who was invited, who answers, what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from erv.study.answers.connection import Answerbase
from erv.study.answers.tables import (
    UNDO,
    answers,
    completions,
    invitations,
    raters,
    studies,
    withdrawals,
)
from erv.study.plan import Study


@dataclass(frozen=True)
class RaterState:
    """A rater.

    Attributes:
        id: the pseudonym.
        invitation: id of the invitation; None if imported.
        participant: who it is to the panel, or to the program that answers came from; None without either.
        slot: None if imported.
        answered, asked: numbers of items.
        finished, withdrawn: whether.
        code: the completion code that was shown at the end; None before.
    """

    id: str
    invitation: str | None
    participant: str | None
    slot: str | None
    answered: int
    asked: int
    finished: bool
    withdrawn: bool
    code: str | None

    @property
    def word(self) -> str:
        """Its state in a word."""
        if self.finished:
            return "finished"
        return "withdrawn" if self.withdrawn else "imported" if self.slot is None else "under way"


@dataclass(frozen=True)
class InvitationState:
    """An invitation.

    Attributes:
        id: names it.
        panel: of whose members; None for one person.
        raters: how many came with it.
        expires_ms: when it ends, milliseconds since 1970.
        withdrawn: whether it was withdrawn.
    """

    id: str
    panel: str | None
    raters: int
    expires_ms: int
    withdrawn: bool


@dataclass(frozen=True)
class State:
    """A study's progress.

    Attributes:
        study: SHA-256 of the plan.
        invitations: in the order in which they were made.
        raters: in the order in which they came.
        answers: answers that count, per main item.
        free: slots that nobody has taken, or that were given up.
        elsewhere: answers to other plans of the same name.
    """

    study: str
    invitations: tuple[InvitationState, ...]
    raters: tuple[RaterState, ...]
    answers: dict[str, int]
    free: tuple[str, ...]
    elsewhere: int

    def uninvited(self, at_ms: int) -> int:
        """How many free places have nobody who may still come: 0 if a panel's members may.

        Args:
            at_ms: now, milliseconds since 1970.
        """
        held = [one for one in self.invitations if not one.withdrawn and one.expires_ms > at_ms]
        if any(one.panel for one in held):
            return 0
        return max(0, len(self.free) - sum(not one.raters for one in held))


def state_of(base: Answerbase, study: Study) -> State:
    """Looks at a study in the database, which it may not know yet.

    Raises:
        DataError: a rater has a slot that no file of the study has.
    """
    mine = raters.c.study == study.sha256
    with base.reading() as connection:
        came = connection.execute(
            sa.select(raters).where(mine).order_by(raters.c.at_ms, raters.c.rater)
        ).all()
        invited = connection.execute(
            sa.select(invitations)
            .where(invitations.c.study == study.sha256)
            .order_by(invitations.c.at_ms, invitations.c.invitation)
        ).all()
        log = connection.execute(sa.select(answers).where(answers.c.study == study.sha256)).all()
        withdrawn = set(connection.scalars(sa.select(withdrawals.c.withdrawn)))
        codes = {
            row.rater: row.code
            for row in connection.execute(sa.select(completions.c.rater, completions.c.code))
        }
        others = (
            sa.select(sa.func.count())
            .select_from(answers.join(studies, studies.c.study == answers.c.study))
            .where(studies.c.name == study.name, studies.c.study != study.sha256, answers.c.kind != UNDO)
        )
        elsewhere = int(connection.scalar(others) or 0)
    undone = {row.undoes for row in log if row.kind == UNDO}
    given = [row for row in log if row.kind != UNDO and row.number not in undone]

    def gone(row: Any) -> bool:
        return row.rater in withdrawn or row.invitation in withdrawn

    states = tuple(
        RaterState(
            row.rater,
            row.invitation,
            row.participant,
            row.slot,
            sum(answer.rater == row.rater for answer in given),
            len(study.items if row.slot is None else study.asked(row.slot)),
            row.rater in codes,
            gone(row),
            codes.get(row.rater),
        )
        for row in came
    )
    held = {row.slot for row in states if row.finished or not row.withdrawn}
    return State(
        study.sha256,
        tuple(
            InvitationState(
                row.invitation,
                row.panel,
                sum(one.invitation == row.invitation for one in came),
                row.expires_ms,
                row.invitation in withdrawn,
            )
            for row in invited
        ),
        states,
        {
            item.id: sum(answer.item == item.id for answer in given)
            for item in study.items
            if item.role == "main"
        },
        tuple(slot for slot in study.assignments if slot not in held),
        elsewhere,
    )
