"""Takes answers from another program into the database: all of them, or none.

People of the other program become raters of their own. Left out are answers of this study's raters, which
`erv study export` wrote into the project, and those of people who were withdrawn here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from erv.errors import DataError
from erv.study.answers.connection import Answerbase
from erv.study.answers.raters import is_withdrawn, now, pseudonym
from erv.study.answers.rows import Given as Rows
from erv.study.answers.rows import answer_row, given_by, undo_row
from erv.study.answers.tables import raters
from erv.study.exchange.given import Given, key_of
from erv.study.plan import Study

Changed = Literal["refuse", "keep", "replace"]


@dataclass
class Taken:
    """How many answers there were of each sort.

    Attributes:
        new: added.
        known: taken before.
        replaced: changed over there, and taken in the place of the earlier ones.
        kept: changed over there, and left out.
        own: of this study's raters, and left out.
        withdrawn: of people who were withdrawn here, and left out.
        people: those whose answers are here now.
    """

    new: int = 0
    known: int = 0
    replaced: int = 0
    kept: int = 0
    own: int = 0
    withdrawn: int = 0
    people: set[str] = field(default_factory=set)


def take(
    base: Answerbase,
    study: Study,
    given: Sequence[Given],
    *,
    changed: Changed = "refuse",
    name_rater: Callable[[], str] = pseudonym,
    clock: Callable[[], int] = now,
) -> Taken:
    """Keeps answers in one transaction.

    Args:
        base: the open database, which knows the study.
        study: the plan.
        given: of `read_project`, which has checked each by itself.
        changed: what becomes of an answer that was another one when it was taken before: `replace` takes the
            earlier one back and keeps both in the database; `keep` leaves the new one out.
        name_rater: gives a new rater a pseudonym that no other has.
        clock: milliseconds since 1970.

    Raises:
        DataError: somebody answered an item twice, or an answer was changed and `changed` is `refuse`.
            Nothing is kept then.
    """
    _check_once(given)
    taken = Taken()
    with base.writing() as connection:
        mine = sa.select(raters.c.rater, raters.c.participant, raters.c.slot)
        known = connection.execute(mine.where(raters.c.study == study.sha256)).all()
        names = {row.rater for row in known}
        people = {row.participant: row.rater for row in known if row.slot is None}
        withdrawn = {who for who, rater in people.items() if is_withdrawn(connection, rater)}
        before = {rater: given_by(connection, rater) for rater in people.values()}
        for one in given:
            if one.user in names:
                taken.own += 1
            elif one.who in withdrawn:
                taken.withdrawn += 1
            else:
                if one.who not in people:
                    people[one.who] = name_rater()
                    connection.execute(_rater_row(study, people[one.who], one.who, clock()))
                taken.people.add(one.who)
                rater = people[one.who]
                _keep(connection, study, rater, before.get(rater), one, changed, clock(), taken)
    return taken


def _check_once(given: Sequence[Given]) -> None:
    seen: dict[tuple[str, str], Given] = {}
    for one in given:
        other = seen.setdefault((one.who, one.item), one)
        if other is not one:
            raise DataError(
                f"{one.where}: {one.user} answered item {one.item} twice, here and in {other.where}; delete"
                " one of the two in the other program, and export again"
            )


def _keep(
    connection: Connection,
    study: Study,
    rater: str,
    before: Rows | None,
    one: Given,
    changed: Changed,
    at_ms: int,
    taken: Taken,
) -> None:
    text = json.dumps(study.check(one.item, one.value), sort_keys=True)
    rows = [row for row in before.rows if row.item == one.item] if before else []
    stands = next((row for row in rows if before and row.number not in before.undone), None)
    if stands is not None:
        if stands.value == text:
            taken.known += 1
            return
        if changed == "keep":
            taken.kept += 1
            return
        if changed == "refuse":
            raise DataError(
                f"{one.where}: {one.user} answered item {one.item} otherwise when this was imported before"
                f" ({_said(stands.value)}, now {_said(text)}); --changed replace takes the new answer,"
                " --changed keep leaves it out"
            )
        connection.execute(undo_row(stands, at_ms=at_ms, key=key_of(one.key, "undo", str(len(rows)))))
    connection.execute(
        answer_row(
            study,
            rater,
            one.item,
            text,
            turn=len(rows),
            seconds=one.shown_seconds,
            at_ms=at_ms if one.at_ms is None else one.at_ms,
            key=key_of(one.key, str(len(rows))) if rows else one.key,
        )
    )
    if stands is None:
        taken.new += 1
    else:
        taken.replaced += 1


def _said(text: str) -> str:
    value: Mapping[str, Any] = json.loads(text)
    said = value.get("preferred") or ", ".join(f"{n} {v}" for n, v in value.get("ratings", {}).items())
    return f"{value['emotion']}: {said}"


def _rater_row(study: Study, rater: str, who: str, at_ms: int) -> sa.Insert:
    return raters.insert().values(rater=rater, study=study.sha256, turn=0, participant=who, at_ms=at_ms)
