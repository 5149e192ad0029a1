"""Closes a flow run that was killed outright: the next flow in its workspace tells Prefect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Crashed

NOTE = Path(".erv") / "flow_run"


@contextmanager
def noted(flow_run_id: UUID, note: Path = NOTE) -> Iterator[None]:
    """Keeps the id of this workspace's flow run in `note` while the block runs; hold the workspace's lock.

    An existing note was left by a flow that was killed: it is marked as crashed in Prefect.
    """
    if note.is_file():
        left = note.read_text(encoding="utf-8").strip()
        if left != str(flow_run_id):  # a retry of the same flow run keeps the name
            _close(left)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{flow_run_id}\n", encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _close(left: str) -> None:
    try:
        flow_run_id = UUID(left)
    except ValueError:  # cut short while it was written
        return
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(flow_run_id).state
        except ObjectNotFound:  # another server, or one that was emptied
            return
        if state is None or not state.is_final():
            of_it = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
            for task_run in client.read_task_runs(flow_run_filter=of_it):
                if task_run.state is None or not task_run.state.is_final():
                    client.set_task_run_state(task_run.id, _killed(), force=True)
            client.set_flow_run_state(flow_run_id, _killed(), force=True)
            get_run_logger().warning("the previous flow run was killed: %s", flow_run_id)


def _killed() -> State[None]:
    return Crashed(message="its process was killed")
