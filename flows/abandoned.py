"""Closes a flow run that was killed outright: the next flow, or worker, in its workspace tells Prefect.

    python -m flows.abandoned

`erv run --worker` starts that first. A deployment that allows one run at a time would wait for minutes until
Prefect takes the slot of the dead run back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Crashed

from erv import pipeline
from erv.pipeline import PipelineError

NOTE = Path(".erv") / "flow_run"


@contextmanager
def noted(flow_run_id: UUID, note: Path = NOTE) -> Iterator[None]:
    """Keeps the id of this workspace's flow run in `note` while the block runs; hold the workspace's lock.

    An existing note was left by a flow that was killed: it is marked as crashed in Prefect.
    """
    if note.is_file():
        left = note.read_text(encoding="utf-8").strip()
        if left != str(flow_run_id):  # a retry of the same flow run keeps the name
            _close(left, get_run_logger().warning)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{flow_run_id}\n", encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def close_left(say: Callable[[str], None], note: Path = NOTE) -> None:
    """Marks the flow run of a note as crashed and removes the note, unless a pipeline runs here.

    Raises:
        httpx.HTTPError: Prefect can't be asked; the note stays.
    """
    if not note.is_file():
        return
    try:
        with pipeline.one_pipeline_at_a_time():
            if note.is_file():
                _close(note.read_text(encoding="utf-8").strip(), say)
                note.unlink()
    except PipelineError:  # it lives, or another does, which has closed it
        return


def _close(left: str, say: Callable[[str], None]) -> None:
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
            say(f"the previous flow run was killed: {flow_run_id}")


def _killed() -> State[None]:
    return Crashed(message="its process was killed")


if __name__ == "__main__":
    close_left(lambda line: print(f"warning: {line}"))  # noqa: T201
