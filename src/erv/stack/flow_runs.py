"""Flow runs on the Prefect server, asked for and looked at without Prefect's client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from erv.environment import Environment
from erv.stack.prefect_api import ask

# What holds a slot of a work pool.
HOLDING = ("PENDING", "RUNNING", "CANCELLING")
_ASKED_BY = "erv_asked_by"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True)
class FlowRun:
    """A flow run: its id, the type of its state, what it says, the parameters, and who asked for it."""

    id: str
    state: str
    message: str
    parameters: Mapping[str, Any]
    asked_by: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED


def start(
    environment: Environment,
    deployment: str,
    parameters: Mapping[str, Any],
    *,
    name: str,
    once: str,
    asked_by: str | None = None,
    job_variables: Mapping[str, Any] | None = None,
    queue: str | None = None,
) -> FlowRun | None:
    """Asks for a run of a deployment; with the same `once`, everybody gets the same run.

    Args:
        environment: where Prefect is.
        deployment: `FLOW/NAME`.
        parameters: of the flow.
        name: of the run.
        once: the idempotency key.
        asked_by: whom the run is to name; one that was there already names another.
        job_variables: what differs from the defaults of the work pool's job template.
        queue: of the deployment's work pool; its usual one by default.

    Returns:
        The run; None if there is no such deployment.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    found = ask(environment, f"/deployments/name/{deployment}", missing=True)
    if found is None:
        return None
    body: dict[str, Any] = {"parameters": dict(parameters), "name": name, "idempotency_key": once}
    if asked_by is not None:
        body["context"] = {_ASKED_BY: asked_by}  # of no meaning to Prefect
    if job_variables:
        body["job_variables"] = dict(job_variables)
    if queue is not None:
        body["work_queue_name"] = queue
    return _run(ask(environment, f"/deployments/{found['id']}/create_flow_run", body))


def look(environment: Environment, flow_run_id: str) -> FlowRun | None:
    """A run as it is now; None if it was deleted.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    found = ask(environment, f"/flow_runs/{flow_run_id}", missing=True)
    return None if found is None else _run(found)


def holding(environment: Environment, pool: str) -> Sequence[FlowRun]:
    """The runs that hold a slot of a work pool.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    body = {
        "work_pools": {"name": {"any_": [pool]}},
        "flow_runs": {"state": {"type": {"any_": list(HOLDING)}}},
        "limit": 200,
    }
    return [_run(item) for item in ask(environment, "/flow_runs/filter", body)]


def set_state(
    environment: Environment, flow_run_id: str, state: str, message: str, *, force: bool = False
) -> None:
    """Gives a run a state, such as `CANCELLING`.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    content = {"type": state, "name": state.capitalize(), "message": message}
    ask(environment, f"/flow_runs/{flow_run_id}/set_state", {"state": content, "force": force}, missing=True)


def was_told(environment: Environment, flow_run_id: str, message: str) -> bool:
    """Whether a run was in a state with this message, as `set_state` gives it, now or before.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    states = ask(environment, f"/flow_run_states/?flow_run_id={flow_run_id}") or []
    return any(state.get("message") == message for state in states)


def _run(found: Mapping[str, Any]) -> FlowRun:
    state = found.get("state") or {}
    return FlowRun(
        str(found["id"]),
        str(found.get("state_type") or state.get("type") or "SCHEDULED"),
        str(state.get("message") or ""),
        found.get("parameters") or {},
        (found.get("context") or {}).get(_ASKED_BY),
    )
