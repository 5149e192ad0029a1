"""A process that holds a model and answers many clients, with the requests that wait for it.

The model is in a process of its own so that what it does to memory, threads and the GPU, or a fault in a
library, ends that process and not the server. Requests are answered in the order in which their clips are
decoded; those that are ready together share a batch.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from erv.answering.clips import ROOT_VARIABLE
from erv.answering.events import LAST, Error, Event, Queued, Started, event_of
from erv.answering.requests import Request
from erv.answering.scratch import Scratch
from erv.errors import ErvError, EvaluationError, RegistryError

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from erv.answering.child import main; main(json.loads(sys.argv[2]))"
)
_END_SECONDS = 10.0
_SHOWN = 300  # characters of the last line of the log
_CLOSED = "the server is closing"
_DIED = "the process of the model has ended; the log says why"


class QueueFull(ErvError):
    """As many requests wait as may; ask again later."""


class Ticket:
    """A request that was taken on."""

    def __init__(self, answerer: Answerer, number: int) -> None:
        self._answerer, self._number = answerer, number
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._place: int | None = None
        self._ended = False

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Yields the events as they come, up to `done` or `error`; for one reader.

        Args:
            timeout: seconds to wait for each event; None waits without end.

        Raises:
            TimeoutError: none came in time. Reading may go on with another call.
        """
        while not self._ended:
            try:
                event = self._events.get(timeout=timeout)
            except Empty:
                raise TimeoutError from None
            self._ended = isinstance(event, LAST)
            yield event

    def cancel(self) -> None:
        """Says that nobody waits for the answer; the last event then comes soon.

        Neither this call nor others wait for that, and the request leaves its place.
        """
        self._answerer._cancel(self._number)

    def _tell(self, event: Event) -> None:
        self._events.put(event)

    def _tell_place(self, place: int) -> None:
        if place != self._place:
            self._place = place
            self._tell(Queued(place))


class Answerer:
    """Answers requests with the model of a bundle; use as a context manager, or call `close`.

    Args:
        bundle: folder that `register` wrote.
        root: what `ERV_SERVE_ROOT` is for it (`erv.answering.clips.served_clips`); None reads only clips that
            come with a request.
        device: "auto", "cpu" or "cuda".
        dtype: of the policy's weights, "float32", "bfloat16" or "float16".
        batch: most requests that are answered together, at least 1.
        queue: most requests that wait, at least 1.
        decoders: clips that are decoded at once; by default the machine's cores, at most 4.
        log: file that gets what the process prints; by default it goes with the process.

    Raises:
        RegistryError: the bundle can't be loaded.
        EvaluationError: the process ended while loading.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        root: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        batch: int = 8,
        queue: int = 32,
        decoders: int | None = None,
        log: Path | None = None,
    ) -> None:
        if batch < 1 or queue < 1:
            raise ValueError(f"batch is {batch} and queue is {queue}, expected at least 1 each")
        self._queue = queue
        self._lock = threading.Lock()
        self._outgoing: SimpleQueue[Sequence[bytes] | None] = SimpleQueue()
        self._numbers = iter(range(sys.maxsize))
        self._tickets: dict[int, Ticket] = {}
        self._waiting: list[int] = []
        self._fault: str | None = None
        self._scratch = Scratch()  # for its temporary files
        self._log = log or self._scratch.path / "log"
        options = {
            "bundle": str(Path(bundle).resolve()),
            "device": device,
            "dtype": dtype,
            "batch": batch,
            "decoders": decoders or min(4, os.cpu_count() or 1),
        }
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("answers", self._receive), ("requests", self._deliver))
        ]
        self._process, self._pipe = self._start(options, root)
        try:
            self._wait_until_loaded()
        except BaseException:
            self.close()
            raise
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._fault is None

    @property
    def fault(self) -> str | None:
        """Why it takes no requests, for the operator; None while it does."""
        return self._fault

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        with self._lock:
            return len(self._waiting)

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        with self._lock:
            return len(self._tickets) - len(self._waiting)

    def submit(self, request: Request) -> Ticket:
        """Takes on a request; any thread may call this. It waits for nothing: others send it to the process.

        Raises:
            QueueFull: too many wait.
            EvaluationError: the process has ended.
        """
        with self._lock:
            if self._fault is not None:
                raise EvaluationError(self._fault)
            if len(self._waiting) >= self._queue:
                raise QueueFull(f"{len(self._waiting)} requests wait already; ask again later")
            number = next(self._numbers)
            self._outgoing.put(request.packed(number))
            ticket = self._tickets[number] = Ticket(self, number)
            ticket._tell_place(len(self._waiting))
            self._waiting.append(number)
        return ticket

    def close(self) -> None:
        """Ends the process; requests without an answer get an `error`."""
        self._end(_CLOSED, _CLOSED)
        self._outgoing.put(None)
        # Closing alone would not end a read of another thread, nor tell the process.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._pipe.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._pipe.close()
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, options: dict[str, Any], root: str | None) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = socket.socketpair()
        variables = {name: value for name, value in os.environ.items() if name != ROOT_VARIABLE}
        variables["TMPDIR"] = str(self._scratch.path)
        if root is not None:
            variables[ROOT_VARIABLE] = root
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, self._log.open("wb") as log:
            given = json.dumps({**options, "pipe": theirs.fileno()})
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), given],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=variables,
            )
        return process, Connection(ours.detach())

    def _wait_until_loaded(self) -> None:
        try:
            said = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise EvaluationError(self._obituary()) from None
        if said["kind"] == "refused":
            raise RegistryError(said["sentence"])

    def _receive(self) -> None:
        try:
            while True:
                said = json.loads(self._pipe.recv_bytes())
                self._pass_on(said["number"], event_of(said["event"]))
        except (EOFError, OSError):
            if self._fault is None:  # it was not closed
                self._end(self._obituary(), _DIED)

    def _pass_on(self, number: int, event: Event) -> None:
        with self._lock:
            ticket = self._tickets.get(number)
            if ticket is None:
                return
            if isinstance(event, LAST):
                del self._tickets[number]
            if isinstance(event, (Started, *LAST)) and number in self._waiting:
                self._waiting.remove(number)
                for place, other in enumerate(self._waiting):
                    self._tickets[other]._tell_place(place)
            ticket._tell(event)

    def _cancel(self, number: int) -> None:
        with self._lock:
            if number not in self._tickets:
                return
        self._outgoing.put([json.dumps({"cancel": number}).encode()])

    def _deliver(self) -> None:
        """Sends what is to be said to the process, in order; large clips take a while."""
        with contextlib.suppress(OSError):  # it has ended, which `_receive` finds out too
            while (messages := self._outgoing.get()) is not None:
                for message in messages:
                    self._pipe.send_bytes(message)

    def _end(self, fault: str, said: str) -> None:
        with self._lock:
            self._fault = self._fault or fault
            for ticket in self._tickets.values():
                ticket._tell(Error(said, "died"))
            self._tickets.clear()
            self._waiting.clear()

    def _obituary(self) -> str:
        """How the process ended."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "the process of the model closed its pipe; start it again"
        how = f"was killed (signal {-code})" if code < 0 else f"ended ({code})"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = f": {lines[-1][:_SHOWN]}" if lines else ""
        return f"the process of the model {how}{last}; start it again"
