"""Tells Prefect of deployments that were taken over; its automations tell people (`flows.notices`)."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from erv.environment import Environment
from erv.errors import StackError
from erv.stack.deployments import Deployed, Place, listed
from erv.stack.prefect_events import MODEL_LABEL, emit

EVENT = "erv.takeover"


@dataclass(frozen=True)
class Takeover:
    """What was taken from one place.

    Attributes:
        model: the registered model of those deployments, whose people are told.
        names: of the deployments, as `flow/deployment`.
        place: where they worked before.
    """

    model: str
    names: tuple[str, ...]
    place: Place

    def text(self, environment: Environment, by: str) -> str:
        """What the person replaced is told.

        Args:
            environment: where the deployments work now.
            by: who took them over.
        """
        here = f"{environment.workspace} on {platform.node()}"
        them = listed(self.names)
        return (
            f"{by} has taken over {them} from {self.place}: new runs work in {here}, whoever asks for them."
            " `erv run` works in your own clone as before; `erv run --deploy --replace` there takes them back"
        )


def takeovers(environment: Environment, before: Sequence[Deployed], model: str) -> Iterator[Takeover]:
    """What other clones had, by place and model.

    Args:
        environment: of the clone that has deployed.
        before: the deployments as they were.
        model: of this clone; that of deployments of earlier versions, which don't say theirs.
    """
    found: dict[tuple[Place, str], list[str]] = {}
    for one in before:
        if not one.place.is_of(environment):
            found.setdefault((one.place, one.model or model), []).append(one.name)
    for (place, of), names in found.items():
        yield Takeover(of, tuple(names), place)


def tell(environment: Environment, taken: Takeover, by: str) -> str | None:
    """Sends the event of a takeover, which stands even if Prefect can't be reached.

    Returns:
        A warning if nobody can be told.
    """
    resource = {"prefect.resource.id": f"erv.deployments.{taken.model}", MODEL_LABEL: taken.model}
    payload = {
        "text": taken.text(environment, by),
        "model": taken.model,
        "deployments": list(taken.names),
        "by": by,
        "before": {"folder": taken.place.folder, "by": taken.place.by},
        "now": str(environment.workspace),
    }
    try:
        emit(environment, EVENT, resource, payload)
    except StackError as error:
        return f"the deployments are taken over, but Prefect could not be told: {error}"
    return None
