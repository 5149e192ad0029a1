"""The process that holds a model and answers; started by `erv.answering.process`.

It takes messages from its parent: a head as JSON, followed by the files that it announces. Some threads have
clips decoded, each in a sandboxed process of its own (`erv.media.nursery`), while the main thread lets the
policy answer those that are ready, as many together as wait. It ends when the parent does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from erv.answering.events import LAST, Error, Event
from erv.answering.requests import Request, request_of
from erv.answering.streaming import CANCELLED, FAILED, Ready, Streaming

logger = logging.getLogger(__name__)


@dataclass
class Asked:
    """A request in this process.

    Attributes:
        number: by which the parent knows it.
        request: what is asked; an empty one after `cancel`.
        received: when it came, in seconds of the monotonic clock.
        cancelled: set once nobody waits for it.
    """

    number: int
    request: Request
    received: float
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Notes that nobody waits for it, and lets go of its files."""
        self.cancelled.set()
        self.request = Request()


class Child:
    """Answers the requests of one connection.

    Args:
        pipe: to the parent.
        streaming: what answers.
        batch: most requests that are answered together.
        decoders: clips that are decoded at once.
    """

    def __init__(self, pipe: Connection, streaming: Streaming, *, batch: int, decoders: int) -> None:
        self._pipe, self._streaming, self._batch = pipe, streaming, batch
        self._sending = threading.Lock()
        self._asked: dict[int, Asked] = {}
        self._ready: dict[int, Ready] = {}  # by number, in the order in which they were decoded
        self._changed = threading.Condition()  # guards `_ready`
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")

    def run(self) -> NoReturn:
        """Answers until the parent closes the connection, which ends this process."""
        self._send({"kind": "ready"})
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        while True:
            self._answer(self._next())

    def _next(self) -> list[Ready]:
        """The requests that are answered now; waits until there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready)
            return [self._ready.pop(number) for number in list(self._ready)[: self._batch]]

    def _answer(self, batch: Sequence[Ready]) -> None:
        try:
            self._streaming.answer(batch)
        except Exception:  # this process holds the model of all clients, so no request may end it
            logger.exception("a batch could not be answered")
            for item in batch:
                item.tell(Error(FAILED, "failed"))  # not heard by those that have their last event

    def _receive(self) -> None:
        try:
            while True:
                head: dict[str, Any] = json.loads(self._pipe.recv_bytes())
                received = time.monotonic()
                if head.get("cancel") is not None:
                    self._cancel(head["cancel"])
                    continue
                files = [self._pipe.recv_bytes() if there else None for there in head["has"]]
                asked = Asked(head["number"], request_of(head, *files), received)
                self._asked[asked.number] = asked
                self._decoders.submit(self._prepare, asked)
        except (EOFError, OSError):
            os._exit(0)  # nobody hears what is being said, and a generation can't be left otherwise

    def _cancel(self, number: int) -> None:
        """Drops a request at once, wherever it is; a batch goes on without it at the next token."""
        if (asked := self._asked.get(number)) is None:
            return
        asked.cancel()
        with self._changed:
            self._ready.pop(number, None)
        self._tell(number, Error(CANCELLED, "cancelled"))

    def _prepare(self, asked: Asked) -> None:
        def tell(event: Event) -> None:
            self._tell(asked.number, event)

        try:
            ready = self._streaming.prepare(asked.request, tell, asked.cancelled.is_set, asked.received)
        except Exception:
            logger.exception("a clip could not be prepared")
            tell(Error(FAILED, "failed"))
        else:
            with self._changed:
                if ready is not None and not asked.cancelled.is_set():
                    self._ready[asked.number] = ready
                    self._changed.notify()

    def _tell(self, number: int, event: Event) -> None:
        if isinstance(event, LAST):
            self._asked.pop(number, None)
        self._send({"number": number, "event": event.as_dict()})

    def _send(self, content: dict[str, Any]) -> None:
        with self._sending:
            self._pipe.send_bytes(json.dumps(content).encode())


def _device(wanted: str) -> str:
    from erv.determinism import resolve_device

    return str(resolve_device(wanted))


def main(options: dict[str, Any]) -> None:
    """Loads the model and answers.

    Args:
        options: `pipe` (descriptor), `bundle`, `device`, `dtype`, `batch`, `decoders`.
    """
    from erv.answering.clips import served_clips
    from erv.answering.predictor import Predictor
    from erv.answering.seeing import nursery_for
    from erv.errors import ErvError

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends us
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    pipe = Connection(options["pipe"])
    try:
        predictor = Predictor(Path(options["bundle"]), served_clips(), dtype=options["dtype"])
        nursery = nursery_for(predictor.rule)
        nursery.begin()  # it imports the decoders while the model loads
        predictor.start = nursery.start
        predictor.device = _device(options["device"])  # after the quick checks: this imports torch
        predictor.load()
    except ErvError as error:
        pipe.send_bytes(json.dumps({"kind": "refused", "sentence": str(error)}).encode())
        return
    child = Child(pipe, Streaming(predictor), batch=options["batch"], decoders=options["decoders"])
    child.run()
