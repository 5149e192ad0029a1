"""One switch that stops every stage of a flow run, thrown by whatever asks for it."""

from __future__ import annotations

import contextvars
import threading
from types import TracebackType
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.logging import get_logger

_POLL_SECONDS = 2.0


class Cancellation:
    """Tells the stages to stop: when the flow leaves its body early, or when the server has it cancelled.

    A worker turns a cancellation into SIGTERM, which Prefect raises in the flow's main thread. A flow that a
    person runs from a terminal has no worker: it asks the server itself, every two seconds.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._stop = threading.Event()
        self._left = threading.Event()
        self.by_server = False
        # With the context of the flow: Prefect keeps its settings there, the server's address among them.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._watch,), name="cancel", daemon=True)

    def asked(self) -> bool:
        """Whether the stages are to stop."""
        return self._stop.is_set()

    def __enter__(self) -> Cancellation:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()  # SIGTERM, Ctrl-C or a bug: nothing may go on below a flow that has ended
        self._left.set()

    def _watch(self) -> None:
        with get_client(sync_client=True) as client:
            while not self._left.wait(_POLL_SECONDS):
                try:
                    state = client.read_flow_run(self._flow_run_id).state
                except Exception as error:
                    # The server may be away for a moment; stages go on, and the next poll asks again.
                    get_logger("flows").debug("can't ask for cancellation: %s", error)
                    continue
                if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
                    self.by_server = True
                    self._stop.set()
                    return
