"""What the terminal shows of the log of a flow run: nothing twice."""

from __future__ import annotations

import logging

from prefect.exceptions import CancelledRun, FailedRun

from erv.errors import ErvError

INTERRUPTED = "interrupted; finished work is kept, run it again to resume"
PRINTED = {"erv_printed": True}  # `extra` of a record that the command prints by itself


def leave_out_what_is_printed() -> None:
    """Keeps records marked `PRINTED` out of the terminal; Prefect's page and a worker still get them."""
    for name in (None, "prefect"):  # which of them has the terminal depends on Prefect's version
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_not_printed)


def leave_out_empty_failures() -> None:
    """Drops what Prefect says of a task that returns a failed state, above its own line on the same state.

    It is that state's representation and the traceback of no exception, `NoneType: None`.
    """
    logging.getLogger("prefect.task_runs").addFilter(_has_its_exception)


def leave_out_tracebacks_of_ended_runs() -> None:
    """Drops what a worker says of a flow that returned its failed state, after a line with that state.

    It is the traceback of Prefect's own calls, and of no use to who gave a wrong parameter, say.
    """
    for name in ("prefect.flow_runs", "prefect.engine"):  # the second if no worker has heard of the state
        logging.getLogger(name).addFilter(_no_ended_run)


def _not_printed(record: logging.LogRecord) -> bool:
    return not getattr(record, "erv_printed", False)


def _no_ended_run(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], FailedRun | CancelledRun | ErvError)


def _has_its_exception(record: logging.LogRecord) -> bool:
    return record.exc_info is None or record.exc_info[0] is not None
