"""Which version is champion: its alias, the champions that `rollback` goes back through, and every reign.

`promote` and `rollback` change them by hand. Each change is noted with who, when, how and why
(`erv.register.reign`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from erv.environment import Environment
from erv.errors import RegistryError
from erv.register import reign
from erv.register.against_champion import is_traced, objections, unmet, unseen
from erv.register.explained import explained
from erv.register.news import tell
from erv.register.reign import Reign, complete, last_noted, note, now, overridden, present_reign
from erv.register.turn import registry_turn
from erv.register.verdict import CHAMPION, Verdict, nothing_withdrawn
from erv.register.versions import get_version, versions
from erv.settings import Settings
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import repeated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

HISTORY_TAG = "erv.champions"  # of the registered model: the way back for rollback, the current one last
_STEPS_BACK = 50
NOBODY = "none"  # what `expected` says of a model without a champion


class ChampionMovedError(RegistryError):
    """Another version is champion than the one whose place was to be taken."""


class GatesUnmetError(RegistryError):
    """A version did not pass its gates, and nobody forced it past them, or past others than these."""


def promote(
    version: str,
    environment: Environment,
    settings: Settings,
    *,
    by: str,
    lineage: Callable[[str], Verdict],
    withdrawn: Callable[[str], Sequence[Verdict]] = nothing_withdrawn,
    reason: str = "",
    force: bool = False,
    shown: Collection[str] | None = None,
    expected: str | None = None,
) -> str:
    """Makes a version champion by hand; returns a sentence for people. Repeating it is safe.

    Its lineage and its files count as they are now, not as they were when it was published.

    Args:
        version: its number or alias.
        environment: where MLflow is.
        settings: for the model's name.
        by: who does it.
        lineage: verifies the lineage of a version, given its number (`erv.lineage.gate`); asked if a gate
            asks for it.
        withdrawn: what the list of withdrawn clips has against a version (`erv.lineage.withdrawal`).
        reason: why; kept with the reign.
        force: also if it did not pass its gates; they are then named in the reign.
        shown: the objections that a person saw before forcing it (`erv.register.review`); any other still
            refuses the version. By default, all are overridden.
        expected: the number of the champion whose place it takes, or `none`; by default any.

    Raises:
        ChampionMovedError: another version than the expected one is champion. That this one is doesn't matter
            if its reign isn't noted, as after a killed command, which this call then completes.
        GatesUnmetError: it did not pass its gates, or passed them against another champion than the present
            one; if it is forced, there is an objection that was not shown.
        RegistryError: no such version, or MLflow can't be reached or refuses.
    """
    name = settings.register_.model_name
    with explained(environment), registry_turn(environment, name) as check:
        client = client_of(environment)
        found = repeated(lambda: get_version(client, name, version))
        number = str(found.version)
        model = repeated(lambda: client.get_registered_model(name))
        before, old = champion_in(model), present_reign(model)
        what = _named(name, version, number)
        # One whose reign nobody noted is promoted anew: a killed command may have changed the alias alone.
        if before != number or number == last_noted(model):
            _expect(name, expected, old)
        if said := _already(model, number, what):
            return said
        present = None if before is None else repeated(lambda: get_version(client, name, before))
        traced = lineage(number) if is_traced(found, settings) else None
        against = objections(found, present, traced, withdrawn(number))
        past = [] if not force else against if shown is None else shown
        if unseen(against, past):
            raise GatesUnmetError(_refusal(f"{what} {unmet(against)}; promote it", against))
        check()
        complete(client, name)
        new = Reign(number, now(), by, "promote", reason, tuple(against))
        make_champion(client, name, new)
    tell(environment, name, new, before)
    said = f"{what} is now the champion"
    if before == number:
        said = f"{what} was already the champion; since when and why is noted only now"
    elif old is not None:
        said += f"; it was {old.brief()}"
    return f"{said}; {overridden(against)}" if against else said


def already(version: str, environment: Environment, settings: Settings) -> str | None:
    """A sentence for people if a version is champion, so that there is nothing to promote; None if it isn't.

    Args:
        version: its number or alias.
        environment: where MLflow is.
        settings: for the model's name.

    Raises:
        RegistryError: no such version, or MLflow can't be reached.
    """
    name = settings.register_.model_name
    with explained(environment):
        client = client_of(environment)
        number = str(repeated(lambda: get_version(client, name, version)).version)
        model = repeated(lambda: client.get_registered_model(name))
    return _already(model, number, _named(name, version, number))


def rollback(
    environment: Environment,
    settings: Settings,
    *,
    by: str,
    lineage: Callable[[str], Verdict],
    withdrawn: Callable[[str], Sequence[Verdict]] = nothing_withdrawn,
    reason: str = "",
    force: bool = False,
    expected: str | None = None,
) -> str:
    """Makes the previous champion that still exists the champion again; returns a sentence for people.

    Repeating it after an interruption goes back to the same version, no further. What that failed when it
    became champion doesn't count again, but its lineage, its files and the list of withdrawn clips of now.

    Args:
        environment: where MLflow is.
        settings: for the model's name.
        by: who does it.
        lineage: as for `promote`.
        withdrawn: as for `promote`.
        reason: why; kept with the reign.
        force: also if its lineage doesn't hold or can't be verified, or if it used withdrawn clips; the reign
            then says so.
        expected: the number of the champion to go back from, or `none`; by default any.

    Raises:
        ChampionMovedError: another version than the expected one is champion.
        GatesUnmetError: the lineage of the version to go back to doesn't hold or can't be verified, or it
            used withdrawn clips.
        RegistryError: there was none, or all of them were deleted, or MLflow can't be reached or refuses.
    """
    name = settings.register_.model_name
    with explained(environment), registry_turn(environment, name) as check:
        client = client_of(environment)
        model = repeated(lambda: client.get_registered_model(name))
        old = present_reign(model)
        _expect(name, expected, old)
        if old is not None and old.pending:
            return _finished(client, environment, name, old)
        history = _history(model)
        there = {str(version.version) for version in repeated(lambda: versions(client, name))}
        way, gone = _way_back(history, there)
        if not way:
            deleted = f" that still exists ({_deleted(gone)})" if gone else ""
            raise RegistryError(f"{name}: there is no previous champion{deleted}; see `erv promote`")
        before, present = way[-1], champion_in(model)
        found = repeated(lambda: get_version(client, name, before))
        traced = lineage(before) if is_traced(found, settings) else None
        doubts = [] if traced is None or traced.passed else [traced]
        against = [verdict.text() for verdict in (*doubts, *withdrawn(before))]
        if against and not force:
            why = "can't be served as it is" if doubts else "should not be served"
            start = f"{name} version {before}, the champion before, {why}; go back to it"
            raise GatesUnmetError(_refusal(start, against))
        check()
        # The alias comes after the note, which is pending until then, so that a repetition knows its reign.
        text = ",".join(way)
        repeated(lambda: client.set_registered_model_tag(name, HISTORY_TAG, text))
        new = Reign(before, now(), by, "rollback", reason, tuple(against))
        note(client, name, replace(new, pending=True), present)
        repeated(lambda: client.set_registered_model_alias(name, CHAMPION, before))
        complete(client, name)
    tell(environment, name, new, present)
    was = f"it was {old.brief()}" if old else f"there was none, and version {history[-1]} was the last"
    said = f"{name} version {before} is the champion again; {was}"
    if gone:
        said += f"; passed over {_deleted(gone)}"
    return f"{said}; {overridden(against)}" if against else said


def _named(name: str, version: str, number: str) -> str:
    return f"{name} version {number}" + ("" if version == number else f" ({version})")


def _already(model: RegisteredModel, number: str, what: str) -> str | None:
    """None for one whose reign nobody noted: a killed command changed the alias alone; promote it anew."""
    old = present_reign(model)
    if old is None or not champion_in(model) == number == last_noted(model):
        return None
    return f"{what} is already the champion, {old.origin()}"


def _finished(client: MlflowClient, environment: Environment, name: str, reign: Reign) -> str:
    """Ends a rollback that was interrupted after the alias was set; returns a sentence for people."""
    complete(client, name)
    tell(environment, name, reign, None)
    return (
        f"{name} version {reign.version} is the champion again already, {reign.origin()}, by a command that"
        " was interrupted; run it again to go further back"
    )


def _refusal(start: str, against: Sequence[str]) -> str:
    remedy = f"{start} in spite of that with --force --reason TEXT"
    return "\n".join([remedy, *(f"  {sentence}" for sentence in against)])


def _expect(name: str, expected: str | None, present: Reign | None) -> None:
    """Refuses to go on if a colleague changed the champion meanwhile; the caller has the registry's turn.

    Raises:
        ChampionMovedError: the champion is not the expected one.
    """
    if expected is None or expected == (NOBODY if present is None else present.version):
        return
    wanted = "no champion" if expected == NOBODY else f"version {expected} as champion"
    found = "there is none" if present is None else f"the champion is {present.brief()}"
    raise ChampionMovedError(f"{name}: expected {wanted}, but {found}; nothing was changed")


def _way_back(history: Sequence[str], there: Collection[str]) -> tuple[list[str], list[str]]:
    """The champions before the present one that still exist, the nearest last, and the deleted ones after it.

    Args:
        history: from `_history`.
        there: the versions that exist.
    """
    way, gone = [*history[:-1]], []
    while way and (way[-1] not in there or way[-1] == history[-1]):
        number = way.pop()
        if number not in there and number not in gone:
            gone.append(number)
    return way, gone


def _deleted(numbers: Sequence[str]) -> str:
    """`version 2, which was deleted`."""
    several = len(numbers) > 1
    words = "versions" if several else "version"
    return f"{words} {', '.join(numbers)}, which {'were' if several else 'was'} deleted"


def champion_in(model: RegisteredModel) -> str | None:
    """The number of the version that is champion of a registered model, or None."""
    owner = model.aliases.get(CHAMPION)
    return None if owner is None else str(owner)


def champion_of(client: MlflowClient, name: str) -> str | None:
    """The same, of the model as it is now on the server."""
    return champion_in(repeated(lambda: client.get_registered_model(name)))


def make_champion(client: MlflowClient, name: str, new: Reign) -> None:
    """Makes a version champion, whatever its gates say, and notes its reign."""
    model = repeated(lambda: client.get_registered_model(name))
    text = ",".join(_extended(_history(model), new.version)[-_STEPS_BACK:])
    repeated(lambda: client.set_registered_model_alias(name, CHAMPION, new.version))
    repeated(lambda: client.set_registered_model_tag(name, HISTORY_TAG, text))
    note(client, name, new, champion_in(model))


def hand_over(client: MlflowClient, name: str, copy: str, number: str) -> None:
    """The aliases of a version, and its place in the history of champions, go to another."""
    reign.hand_over(client, name, copy, number)
    model = repeated(lambda: client.get_registered_model(name))
    history = [n for n in model.tags.get(HISTORY_TAG, "").split(",") if n]
    if copy in history:
        renamed: list[str] = []
        for entry in history:
            renamed = _extended(renamed, number if entry == copy else entry)
        text = ",".join(renamed)
        repeated(lambda: client.set_registered_model_tag(name, HISTORY_TAG, text))
    for alias in [alias for alias, owner in model.aliases.items() if str(owner) == copy]:
        repeated(lambda alias=alias: client.set_registered_model_alias(name, alias, number))  # type: ignore[misc]


def _extended(history: Sequence[str], number: str) -> list[str]:
    """The history with a new champion; a publication that is resumed does not count twice."""
    return [*history] if list(history[-1:]) == [number] else [*history, number]


def _history(model: RegisteredModel) -> list[str]:
    """The champions so far, the current one last, even if its alias was moved by other means."""
    history = [n for n in model.tags.get(HISTORY_TAG, "").split(",") if n]
    present = champion_in(model)
    if present is not None and history[-1:] != [present]:
        history.append(present)
    return history
