"""One switch that stops every stage of a flow run, whoever asks for it."""

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
    """Tells the stages to stop when the flow leaves its body early, or when the server cancels it.

    A worker turns a cancellation into SIGTERM, which Prefect raises in the flow's main thread. A flow
    started from a terminal has no worker, so it asks the server itself, every two seconds.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._stop = threading.Event()
        self._left = threading.Event()
        self.by_server = False
        # In the context of the flow, where Prefect keeps its settings, such as the server's address.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._watch,), name="cancel", daemon=True)

    def asked(self) -> bool:
        """Whether the stages are to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Has the stages stop."""
        self._stop.set()

    def __enter__(self) -> Cancellation:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()  # SIGTERM, Ctrl-C or a bug: no stage may outlive the flow
        self._left.set()

    def _watch(self) -> None:
        with get_client(sync_client=True) as client:
            while not self._left.wait(_POLL_SECONDS):
                try:
                    state = client.read_flow_run(self._flow_run_id).state
                except Exception as error:
                    # The server may be away for a moment; stages go on, and the next poll asks again.
                    get_logger("flows").debug("can't ask whether the flow is cancelled: %s", error)
                    continue
                if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
                    self.by_server = True
                    self._stop.set()
                    return
