"""Publishing a bundle: makes sure that it is registered and gated on a server, however often it is asked.

A version is recognised by the hash of its bundle and the digest of the code that serves it. Each publication
verifies its lineage, looks whether that code is committed (`erv.register.uncommitted`) and decides what its
kept verdicts don't say about the present champion (`erv.register.against_champion`). What a person decided
(`promote`, `rollback`) stands: a bundle that was champion once becomes champion by its gates no more, also if
its version was deleted, except that a new version takes the place of one with the same bundle.

Processes that change the registry take turns (`registry_turn`). Where they can't see each other's lease, two
may still register one bundle: the lowest version stays, the others go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import content_digest
from erv.pipeline import read_lock_entries
from erv.register.against_champion import compared, count_against, kept_verdicts, taken_over
from erv.register.aliases import champion_in, champion_of, make_champion
from erv.register.champion import Opponent, keep_answers, opponent
from erv.register.explained import explained
from erv.register.gates import unopposed
from erv.register.news import tell
from erv.register.people import decided_by_people
from erv.register.register import Bundle, read_bundle
from erv.register.registration import close_killed, describe, one_version
from erv.register.reign import How, Reign, complete, now, reigns
from erv.register.serving_code import serving_code
from erv.register.succession import succession
from erv.register.turn import registry_turn
from erv.register.unasked import unasked
from erv.register.uncommitted import committed_code
from erv.register.verdict import CANT_TELL, CHAMPION, LINEAGE, Verdict, nothing_withdrawn
from erv.register.versions import (
    CHALLENGER,
    CODE_COMMIT_TAG,
    CODE_TAG,
    GATES_TAG,
    HASH_TAG,
    PUBLISH_RUN_TAG,
    versions,
    versions_of,
)
from erv.settings import Settings
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import repeated

_ATTEMPTS = 5  # while other processes change the champion


class _ChampionChangedError(RegistryError):
    """Another process made another version champion after this one looked."""


@dataclass(frozen=True)
class PublishResult:
    """A registered version.

    Attributes:
        name: name of the registered model.
        version: number of the version.
        aliases: the aliases that point to it now.
        verdicts: the verdicts on its gates, against the champion of now.
        new: whether this call registered it.
        champion: the version that is champion now, or None.
        copies: versions of the same bundle that another process registered at the same time; deleted.
        siblings: versions of the same bundle that are served by other code.
        anew: the champion that was evaluated on the present test clips to compare with it, or None.
        unrecorded: champions that were deleted before their bundle was noted, if that alone keeps it from
            becoming champion: they may have had this bundle.
    """

    name: str
    version: str
    aliases: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    new: bool
    champion: str | None
    copies: tuple[str, ...] = ()
    siblings: tuple[str, ...] = ()
    anew: str | None = None
    unrecorded: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether it passed every gate."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def lineage(self) -> Verdict | None:
        """The verdict on its lineage, decided by this call; None if no gate asks for it."""
        return next((verdict for verdict in self.verdicts if verdict.metric == LINEAGE), None)

    def lines(self) -> list[str]:
        """What happened, in sentences for people."""
        what = "registered" if self.new else "was already registered"
        aliases = f"; alias {', '.join(self.aliases)}" if self.aliases else ""
        lines = [f"{self.name} version {self.version} {what}{aliases}"]
        if self.siblings:
            lines.append(f"same bundle as version {', '.join(self.siblings)}, but other code answers")
        if self.copies:
            lines.append(f"deleted version {', '.join(self.copies)}: a second registration of this bundle")
        if self.anew:
            lines.append(f"compared with version {self.anew}, which was evaluated on the present test clips")
        failed = [verdict for verdict in self.verdicts if not verdict.passed]
        if failed:
            count = f"{len(failed)} of {len(self.verdicts)} gates"
            kept_out = CHAMPION not in self.aliases
            lines.append(f"kept from champion by {count}:" if kept_out else f"champion in spite of {count}:")
            lines += [f"  {verdict.text()}" for verdict in failed]
        elif CHAMPION in self.aliases:
            lines.append("all gates hold: it is the champion")
        else:
            lines.append(f"champion is version {self.champion}" if self.champion else "there is no champion")
            lines.append(
                f"all gates hold, but this bundle {self._reigned}, and what was decided since stands: `erv"
                f" promote {self.version}` makes it champion"
            )
        return lines

    @property
    def _reigned(self) -> str:
        if not self.unrecorded:
            return "was champion before"
        numbers = ", ".join(self.unrecorded)
        return f"may have been champion before, as version {numbers}, of which only the number is known"


def publish(
    folder: str | Path,
    environment: Environment,
    settings: Settings,
    parent_run_id: str | None = None,
    *,
    by: str,
    lineage: Callable[[str], Verdict] | None = None,
    withdrawn: Callable[[str], Sequence[Verdict]] = nothing_withdrawn,
    cancelled: Callable[[], bool] = lambda: False,
) -> PublishResult:
    """Makes sure that a bundle is registered and gated.

    Args:
        folder: the bundle, written by `register`.
        environment: where MLflow is.
        settings: for the model's name and the comparison with the champion.
        parent_run_id: the flow's run, under which the publication is shown.
        by: who publishes; noted if the version becomes champion.
        lineage: verifies the lineage of a version, given its number (`erv.lineage.gate`); without it, a
            version becomes no champion if `register.require_lineage` is set.
        withdrawn: what the list of withdrawn clips has against a version (`erv.lineage.withdrawal`).
        cancelled: asked while the champion is evaluated.

    Raises:
        RegistryError: there is no bundle, it was changed, `dvc.lock` does not describe it, MLflow can't be
            reached or refuses, another process changes the registry for too long, or the champion's
            evaluation on the present test clips failed.
        StorageError: the object store, which keeps the lease, can't be reached.
    """
    bundle = read_bundle(Path(folder))
    check_lock(bundle.folder)
    code = serving_code(bundle.folder)

    def attempt() -> PublishResult:
        # Before our turn: the champion may have to be evaluated, and others would wait for hours.
        other = _opponent(bundle, code, environment, settings, parent_run_id, cancelled)
        gates = lineage, withdrawn
        return _publish(bundle, code, other, environment, settings, parent_run_id, by, *gates)

    from funcy import retry

    with explained(environment):
        result: PublishResult = retry(_ATTEMPTS, errors=_ChampionChangedError)(attempt)()
    return result


def _opponent(
    bundle: Bundle,
    code: str,
    environment: Environment,
    settings: Settings,
    parent_run_id: str | None,
    cancelled: Callable[[], bool],
) -> Opponent | None:
    """The champion, if gates are to be decided against it: it is of another bundle, and not met yet."""
    client, name = client_of(environment), settings.register_.model_name
    known = repeated(lambda: versions(client, name))
    same = [version for version in known if version.tags.get(HASH_TAG) == bundle.hash]
    champion = champion_of(client, name) if known else None
    if champion is None or champion in {str(version.version) for version in same}:
        return None
    mine = next((version for version in same if version.tags.get(CODE_TAG) == code), None)
    if mine is not None and count_against(bundle, kept_verdicts(mine), champion, settings):
        return None
    return opponent(
        client, environment, bundle, champion, settings, parent_run_id=parent_run_id, cancelled=cancelled
    )


def _publish(
    bundle: Bundle,
    code: str,
    other: Opponent | None,
    environment: Environment,
    settings: Settings,
    parent_run_id: str | None,
    by: str,
    lineage: Callable[[str], Verdict] | None,
    withdrawn: Callable[[str], Sequence[Verdict]],
) -> PublishResult:
    """Registers and gates a bundle in this process's turn."""
    name = settings.register_.model_name
    crowned: Reign | None = None
    with registry_turn(environment, name) as check:
        client = client_of(environment)
        if serving_code(bundle.folder) != code:
            raise RegistryError(
                "the code that answers for the candidate was edited while it was published; run the same"
                " command again"
            )
        close_killed(client, environment, name)
        version, new, copies = one_version(client, bundle, code, name, environment, parent_run_id, check)
        number = str(version.version)
        same = {str(v.version): v for v in versions_of(client, name, bundle.hash)}
        complete(client, name)
        champion, reigned = champion_of(client, name), reigns(client, name)
        # The candidate of the present state, also one that was registered before.
        repeated(lambda: client.set_registered_model_alias(name, CHALLENGER, number))
        before = kept_verdicts(version)
        champions = None if champion not in same else kept_verdicts(same[champion])
        if champion in same:
            verdicts = taken_over(bundle, champions, champion)
        else:
            verdicts = _gate(bundle, before, champion, other, settings)
        verdicts = (*decided_by_people(verdicts, bundle, settings), *unasked(bundle, settings))
        committed = committed_code(bundle.folder, environment.workspace)
        verdicts += committed.verdicts(version.tags.get(CODE_COMMIT_TAG))
        verdicts += (*_of_lineage(number, settings, lineage), *withdrawn(number))
        check()
        if other is not None and other.anew and any(v.opponent == other.version for v in verdicts):
            keep_answers(client, version.tags[PUBLISH_RUN_TAG], other)
        if (commit := committed.commit) is not None and CODE_COMMIT_TAG not in version.tags:
            repeated(lambda: client.set_model_version_tag(name, number, CODE_COMMIT_TAG, commit))
        text = json.dumps([verdict.as_dict() for verdict in verdicts])
        repeated(lambda: client.set_model_version_tag(name, number, GATES_TAG, text))
        describe(client, bundle, name, number, verdicts)
        how = succession(
            number,
            bundle=bundle.hash,
            code=code,
            same=same,
            champion=champion,
            reigned=reigned,
            verdicts=verdicts,
            before=before,
            champions=champions,
        )
        if how is not None:
            crowned = _reign(number, how, by, verdicts, champion)
            make_champion(client, name, crowned)
        model = repeated(lambda: client.get_registered_model(name))
    if crowned is not None:
        tell(environment, name, crowned, champion)
    mine = tuple(sorted(alias for alias, owner in model.aliases.items() if str(owner) == number))
    siblings = tuple(other_number for other_number in same if other_number != number)
    anew = other.version if other is not None and other.anew else None
    unknown = () if any(r.bundle == bundle.hash for r in reigned) else _unrecorded(reigned)
    return PublishResult(
        name, number, mine, verdicts, new, champion_in(model), copies, siblings, anew, unknown
    )


def _unrecorded(reigned: Sequence[Reign]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(reign.version for reign in reigned if not reign.bundle))


def _reign(number: str, how: How, by: str, verdicts: Sequence[Verdict], champion: str | None) -> Reign:
    reason = f"it has the same bundle as version {champion}" if how == "serving code" else ""
    return Reign(number, now(), by, how, reason, tuple(v.text() for v in verdicts if not v.passed))


def check_lock(folder: Path) -> None:
    """Makes sure that a bundle written by `register` is the one in `dvc.lock`, which is stored with it.

    Raises:
        RegistryError: the folder holds a different bundle, or `dvc.lock` has no entry that describes it.
        PipelineError: `dvc.lock` is damaged.
    """
    for name, entry in read_lock_entries().items():
        if name.partition("@")[0] != "register":
            continue
        for out in entry.get("outs") or []:
            if Path(out["path"]).resolve() != folder.resolve():
                continue
            if content_digest(folder) != out.get("md5"):
                raise RegistryError(
                    f"{folder}: not the bundle that dvc.lock describes; run `dvc repro {name}`"
                )
            return
    raise RegistryError(
        f"{folder}: no entry of dvc.lock describes it, so its lineage would be lost; run `dvc repro register`"
    )


def _gate(
    bundle: Bundle,
    kept: Sequence[Verdict] | None,
    champion: str | None,
    other: Opponent | None,
    settings: Settings,
) -> tuple[Verdict, ...]:
    """The verdicts of a bundle, where no version of it is champion."""
    if champion is None:
        return unopposed(bundle.verdicts)
    if count_against(bundle, kept, champion, settings):
        return taken_over(bundle, kept, champion)
    if other is None or other.version != champion:
        raise _ChampionChangedError(
            f"{settings.register_.model_name}: version {champion} has become champion meanwhile; run the same"
            " command again"
        )
    return compared(bundle, other, settings)


def _of_lineage(
    number: str, settings: Settings, lineage: Callable[[str], Verdict] | None
) -> tuple[Verdict, ...]:
    if not settings.register_.require_lineage:
        return ()
    if lineage is None:
        return (Verdict(LINEAGE, outcome=CANT_TELL, reason="nobody verified it"),)
    return (lineage(number),)
