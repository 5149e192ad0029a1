"""Tells Prefect of a new champion; its automations tell people (`flows.notices`)."""

from __future__ import annotations

import logging

from erv.environment import Environment
from erv.errors import StackError
from erv.register.reign import Reign
from erv.stack.prefect_events import emit

logger = logging.getLogger(__name__)

EVENT = "erv.champion"


def tell(environment: Environment, name: str, new: Reign, before: str | None) -> None:
    """Sends the event of a new champion; the change stands even if Prefect can't be reached.

    Args:
        environment: where Prefect is.
        name: of the registered model.
        new: how the version became champion.
        before: the version that was champion until now, or None.
    """
    text = f"{name} {new.text()}" + (f"\nthe champion before was version {before}" if before else "")
    payload = {
        "text": text,
        "model": name,
        "version": new.version,
        "before": before,
        "how": new.how,
        "by": new.by,
        "reason": new.reason,
        "forced": list(new.forced),
    }
    resource = {"prefect.resource.id": f"erv.model.{name}", "prefect.resource.name": name}
    try:
        emit(environment, EVENT, resource, payload)
    except StackError as error:
        logger.warning("the champion is changed, but Prefect could not be told: %s", error)
