"""What flows share that change their workspace: one at a time, stopped as a whole, ended in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from prefect.context import FlowRunContext
from prefect.states import Cancelled, Failed

from erv import pipeline
from erv.errors import ErvError
from erv.pipeline import StageCancelledError
from flows import console
from flows.abandoned import noted
from flows.cancellation import Cancellation
from flows.clone import refuse_foreign_code


def in_workspace(work: Callable[[UUID, Cancellation], Any], *, alone: bool = True) -> Any:
    """Does the work of a flow, alone in its workspace.

    Args:
        work: takes the id of the flow run, and what says whether to stop.
        alone: whether it changes the workspace; if not, others may do so meanwhile.

    Returns:
        What it returned, or the state in which the flow ends: cancelled, or failed in one sentence.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    console.leave_out_tracebacks_of_ended_runs()
    try:
        refuse_foreign_code()
        with ExitStack() as held:
            if alone:
                held.enter_context(pipeline.one_pipeline_at_a_time())
                held.enter_context(noted(context.flow_run.id))
            cancellation = held.enter_context(Cancellation(context.flow_run.id))
            return work(context.flow_run.id, cancellation)
    except StageCancelledError as error:
        return Cancelled(message=str(error))
    except KeyboardInterrupt:  # Prefect would call it a crash, and everybody would be told
        if context.flow_run.deployment_id is not None:
            raise  # somebody stopped the worker, who need not be the one who waits for the run
        return Cancelled(message=console.INTERRUPTED)
    except ErvError as error:
        return Failed(message=str(error), data=error)  # `flows.ending` tells its exit code
