"""What a person needs to know to decide whether a version becomes champion."""

from __future__ import annotations

from dataclasses import dataclass

from erv.environment import Environment
from erv.register.against_champion import kept_verdicts, objections
from erv.register.explained import explained
from erv.register.reign import Reign, present_reign
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
        gates: a sentence per gate.
        against: those that it did not pass, or passed against another champion than the present one.
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
            count = f"{len(self.against)} of its gates"
            lines += ["", f"It did not pass {count}. To promote it all the same, tick **Force**."]
        return "\n".join(lines)


def review(version: str, environment: Environment, settings: Settings) -> Review:
    """Looks a version up.

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
        found = repeated(lambda: get_version(client, name, version))
        champion = present_reign(repeated(lambda: client.get_registered_model(name)))
        present = None if champion is None else repeated(lambda: get_version(client, name, champion.version))
    gates = tuple(verdict.text() for verdict in kept_verdicts(found) or ())
    return Review(name, str(found.version), champion, gates, tuple(objections(found, present)))
