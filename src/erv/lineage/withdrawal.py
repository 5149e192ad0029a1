"""The gate on withdrawn clips: a version that learned from one, or was tuned on one, becomes no champion.

The clips are those that `data/withdrawn.txt` of the workspace names, which a team commits. Without that file,
nothing is withdrawn. To be tested on a clip leaves nothing of it in a version, so that doesn't count.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from erv.environment import Environment
from erv.lineage.contents import Clip
from erv.lineage.membership import Membership, VersionRoles, clip_name
from erv.lineage.published import read_published
from erv.lineage.roles import TESTED
from erv.lineage.withdrawn import read_ids
from erv.register.verdict import CANT_TELL, FAIL, WITHDRAWN, Verdict
from erv.settings import Settings

LIST = Path("data/withdrawn.txt")
_NAMED = 5  # clips that a verdict names, for each role and stage
_VERBS = {"learned": "learned from", "tuned": "was tuned on"}


class WithdrawalGate:
    """What the list of withdrawn clips has against versions.

    Args:
        environment: where registry and store are, and the workspace with the list.
        settings: for the model's name.

    Raises:
        DataError: the list can't be read. It is read here, before anything is registered.
    """

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self._environment = environment
        self._name = settings.register_.model_name
        path = environment.workspace / LIST
        self._ids = read_ids(path, empty=True) if path.is_file() else []

    def __call__(self, number: str) -> tuple[Verdict, ...]:
        """A verdict that isn't passed, or none.

        Raises:
            RegistryError: MLflow can't be reached or refuses.
        """
        from erv.register.explained import explained
        from erv.tracking.lock_entries import client_of

        if not self._ids:
            return ()
        with explained(self._environment):
            versions = read_published(self._environment, client_of(self._environment))
            mine = next((v for v in versions if (v.model, v.number) == (self._name, number)), None)
            if mine is None:  # erv published no version of this model, so nothing is recorded
                return ()
            return withdrawal_verdicts(Membership(self._environment, versions).of_version(mine), self._ids)


def withdrawal_verdicts(roles: VersionRoles, ids: Collection[str]) -> tuple[Verdict, ...]:
    """What withdrawn clips have against a version.

    Args:
        roles: all that it did with clips.
        ids: of the clips: `mafw/00019`, or `00019` for that clip of every data set.
    """
    wanted = frozenset(ids)
    found = [
        f"{_VERBS[used.role]} {_some(clips)} ({used.stage})"
        for used in roles.used
        if used.role != TESTED
        and (clips := [clip for clip in used.clips if not wanted.isdisjoint((clip_name(clip), clip[1]))])
    ]
    if found:
        return (Verdict(WITHDRAWN, outcome=FAIL, reason=f"{LIST} has clips that it {'; '.join(found)}"),)
    if roles.unread:
        return (Verdict(WITHDRAWN, outcome=CANT_TELL, reason="; ".join(roles.unread)),)
    if roles.version.unrecorded:
        return (Verdict(WITHDRAWN, outcome=CANT_TELL, reason=f"not recorded: {roles.version.unrecorded}"),)
    return ()


def _some(clips: list[Clip]) -> str:
    more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
    return ", ".join(map(clip_name, clips[:_NAMED])) + more
