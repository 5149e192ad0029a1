"""Events for Prefect, which its automations react to: who is told of them is set up there."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from erv.environment import Environment
from erv.stack.prefect_api import ask

MODEL_LABEL = "erv.model"  # of a resource: the registered model whose people are told


def emit(
    environment: Environment, event: str, resource: Mapping[str, str], payload: Mapping[str, Any]
) -> None:
    """Sends an event to Prefect.

    Args:
        environment: where Prefect is; nothing is sent without a server.
        event: what happened, such as `erv.champion`.
        resource: labels of what it happened to; `prefect.resource.id` is required.
        payload: what else there is to say; JSON.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    if not environment.prefect_api_url:
        return
    occurred = datetime.now(UTC).isoformat()
    content = {
        "id": str(uuid.uuid4()),
        "occurred": occurred,
        "event": event,
        "resource": dict(resource),
        "related": [],
        "payload": dict(payload),
    }
    ask(environment, "/events", [content], about=f"an event ({event})")
