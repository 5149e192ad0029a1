"""The flow by which a worker of a shared work pool runs one stage of somebody's pipeline.

`flows.placed` starts it; `erv run --worker --pool NAME` serves it. All that the stage needs, and its result,
is on its board in the object store (`erv.remote`); Prefect only says which worker has it.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed

from erv.environment import isolate, load_environment
from erv.errors import ErvError
from erv.pipeline import StageCancelledError
from erv.remote.board import Board
from erv.remote.work import home_of, work
from erv.stack.own_code import require_own_code
from erv.storage.store import open_store
from flows import console
from flows.cancellation import Cancellation

NAME = "run-stage"
# A shared pool has no folder: its workers work in their own clones.
CLONE = Path(__file__).absolute().parents[1]


@flow(name=NAME, persist_result=False, retries=0)
def run_stage(stage: str, key: str, attempt: int, bucket: str, pool: str) -> Any:
    """Runs one stage for a `train` flow that placed it here; start `train` rather than this.

    Args:
        stage: its name, such as `grpo@erv`.
        key: stands for its command, dependencies and parameters; its board is named after it.
        attempt: which attempt at it this is.
        bucket: of the DVC remote, where the board is.
        pool: the work pool that it was placed in.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    console.leave_out_tracebacks_of_ended_runs()
    logger = get_run_logger()
    try:
        environment = load_environment(CLONE)
        isolate(environment)
        require_own_code(CLONE)
        board = Board(open_store(environment), bucket, key)
        with Cancellation(context.flow_run.id) as cancellation:
            work(
                environment,
                home_of(environment),
                board,
                attempt,
                pool=pool,
                cancelled=cancellation.asked,
                say=lambda line: logger.info("%s", line) if line.strip() else None,
            )
    except StageCancelledError as error:
        return Cancelled(message=f"{stage}: {error}")
    except ErvError as error:
        return Failed(message=f"on {platform.node()}: {error}")
    return None
