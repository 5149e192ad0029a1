"""The gate on lineage: a version whose data, code or runs can't be traced becomes no champion.

It follows every link of a version and compares the files that are served, code included, with their record.
Large objects of DVC's remote are only looked up: `erv lineage --verify` reads them, too. Where a version is
promoted, sources in a folder of the machine on which a publication found its lineage whole count as they did
there: they aren't served.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace

from erv.environment import Environment
from erv.lineage.links import Link
from erv.lineage.model_versions import version_title
from erv.lineage.node import Node, broken, summary, unverifiable
from erv.lineage.trace import Provenance
from erv.register.verdict import CANT_TELL, FAIL, LINEAGE, PASS, Outcome, Verdict
from erv.settings import Settings

_NAMED, _LONGEST = 2, 400  # links that a verdict names, and characters of each


class LineageGate:
    """The gate on the lineage of versions; what it saw last of each can be shown without another look.

    Args:
        environment: where registry and store are.
        settings: for the model's name.
        promoting: whether folders of the machine on which a version was published with a whole lineage count
            as they did there, on another machine.
    """

    def __init__(self, environment: Environment, settings: Settings, promoting: bool = False) -> None:
        self._environment = environment
        self._settings = settings
        self._promoting = promoting
        self._seen: dict[str, Node] = {}

    def __call__(self, number: str) -> Verdict:
        """Follows every link of a version now.

        Raises:
            RegistryError: MLflow can't be reached or refuses.
        """
        node = Provenance(self._environment, self._settings, served=True).trace(number)
        self._seen[number] = node
        verdict, unseen = replace(lineage_verdict(node), machine=platform.node()), unverifiable(node)
        is_elsewhere = self._promoting and all(link.elsewhere for link in unseen)
        if verdict.outcome == CANT_TELL and is_elsewhere and (machine := self._verified_on(number)):
            reason = f"{verdict.reason}; all was verified on {machine} when it was published there"
            verdict = replace(verdict, outcome=PASS, reason=reason)
        return verdict

    def _verified_on(self, number: str) -> str | None:
        """The other machine on which the last publication of a version found its lineage whole, or None.

        An older erv did not note which that was. It may have been this one, which had the folder then, so it
        counts as none.
        """
        from erv.register.against_champion import kept_verdicts
        from erv.register.explained import explained
        from erv.register.versions import get_version
        from erv.tracking.lock_entries import client_of
        from erv.tracking.patience import repeated

        client, name = client_of(self._environment), self._settings.register_.model_name
        with explained(self._environment):
            kept = kept_verdicts(repeated(lambda: get_version(client, name, number))) or ()
        held = next((v.machine for v in kept if v.metric == LINEAGE and v.passed), None)
        return held if held != platform.node() else None

    def node(self, number: str, aliases: Sequence[str]) -> Node:
        """The lineage that the last verdict on a version rests on; without one, it is decided now.

        Args:
            number: of the version.
            aliases: of the version; they may have moved since the verdict.

        Raises:
            RegistryError: MLflow can't be reached or refuses.
        """
        if number not in self._seen:
            self(number)
        node = self._seen[number]
        node.title = version_title(self._settings.register_.model_name, number, aliases)
        return node


def lineage_verdict(node: Node) -> Verdict:
    """The verdict on a lineage; it names the first files that are broken, or can't be checked."""
    outcome: Outcome = FAIL if broken(node) else CANT_TELL if unverifiable(node) else PASS
    found = broken(node) or unverifiable(node)
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    reason = "; ".join([summary(node), *map(_detail, found[:_NAMED]), *more])
    return Verdict(LINEAGE, outcome=outcome, reason=reason)


def _detail(link: Link) -> str:
    """What is wrong with a link, without the remedy at the end, which `erv lineage` has."""
    return f"{link.what}: {link.detail.rpartition('; ')[0] or link.detail}"[:_LONGEST]
