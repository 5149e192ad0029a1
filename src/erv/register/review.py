"""What a person needs to know to decide whether a version becomes champion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from erv.environment import Environment
from erv.register.against_champion import is_traced, objections, present_verdicts, unmet
from erv.register.explained import explained
from erv.register.reign import Reign, present_reign
from erv.register.verdict import Verdict, nothing_withdrawn
from erv.register.versions import get_version
from erv.settings import Settings
from erv.tracking.lock_entries import client_of
from erv.tracking.patience import repeated


@dataclass(frozen=True)
class Review:
    """A version that is up for promotion.

    Attributes:
        name: of the registered model.
        version: its number.
        champion: the reign of the present champion, or None.
        gates: a sentence per gate, as it counts now.
        against: what keeps it from becoming champion: gates that it did not pass, or passed against another
            champion than the present one, or why it has none.
    """

    name: str
    version: str
    champion: Reign | None
    gates: tuple[str, ...]
    against: tuple[str, ...]

    def markdown(self, lacks: str = "") -> str:
        """For the form that the person fills in.

        Args:
            lacks: what the last answer lacked, if the person is asked again.
        """
        now = self.champion.brief() if self.champion else "none"
        lines = [f"**Asked again:** {lacks}", ""] if lacks else []
        lines += [
            f"**{self.name} version {self.version}** is to become champion; the present one: {now}.",
            "",
        ]
        lines += [f"- {gate}" for gate in self.gates]
        lines += [f"- {gate}" for gate in self.against if gate not in self.gates]
        if self.against:
            lines += ["", f"It {unmet(self.against)}. To promote it all the same, tick **Force**."]
        return "\n".join(lines)


def review(
    version: str,
    environment: Environment,
    settings: Settings,
    *,
    lineage: Callable[[str], Verdict],
    withdrawn: Callable[[str], Sequence[Verdict]] = nothing_withdrawn,
) -> Review:
    """Looks a version up, and its lineage as it is now.

    Args:
        version: its number or alias.
        environment: where MLflow is.
        settings: for the model's name.
        lineage: verifies the lineage of a version, given its number.
        withdrawn: what the list of withdrawn clips has against it.

    Raises:
        RegistryError: no such version, or MLflow can't be reached.
    """
    name = settings.register_.model_name
    with explained(environment):
        client = client_of(environment)
        found = repeated(lambda: get_version(client, name, version))
        champion = present_reign(repeated(lambda: client.get_registered_model(name)))
        present = None if champion is None else repeated(lambda: get_version(client, name, champion.version))
        traced = lineage(str(found.version)) if is_traced(found, settings) else None
        listed = withdrawn(str(found.version))
    gates = tuple(verdict.text() for verdict in present_verdicts(found, present, traced, listed))
    against = tuple(objections(found, present, traced, listed))
    return Review(name, str(found.version), champion, gates, against)
