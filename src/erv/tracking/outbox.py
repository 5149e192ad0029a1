"""What a stage has reported and MLflow has not received: a thread delivers it while the stage goes on.

While MLflow is down, the buffer grows and is kept in the spool. It is delivered once MLflow answers again: by
the same thread or, if the stage has ended by then, by `deliver_spool`. If the spool can't be written, the
buffer stays in memory.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import Literal

from erv.environment import Environment, command_for
from erv.tracking.delivery import Delivery, Event, Outage, Unusable
from erv.tracking.header import RunHeader
from erv.tracking.spool import Spool

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]

_BETWEEN_CALLS_SECONDS = 0.5  # metrics of one optimiser step travel together
_SPOOL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 10.0
# How long the end of a stage waits for MLflow without any progress, and at most with progress.
_PATIENCE_SECONDS = {"FINISHED": 20.0, "FAILED": 10.0, "KILLED": 3.0}
_LONGEST_CLOSE_SECONDS = {"FINISHED": 600.0, "FAILED": 60.0, "KILLED": 3.0}
_SILENT_CLOSE_SECONDS = 5.0
_OUT_OF_REACH = "MLflow can't be reached"


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return int(time.time() * 1000)


class Outbox:
    """Buffers the events of one run and delivers them in order, on a thread of its own."""

    def __init__(self, environment: Environment, header: RunHeader) -> None:
        self._environment = environment
        self._header = header
        self.spool = Spool(environment, header)
        self._changed = threading.Condition()
        self._pending: list[Event] = []
        self._closing_until: float | None = None
        self._down_since: float | None = None
        self._trouble = _OUT_OF_REACH
        self._failure: str | None = None
        self._delivery: Delivery | None = None
        self._thread: threading.Thread | None = None

    @property
    def active(self) -> bool:
        """Whether the thread was started and the outbox is not closed."""
        return self._thread is not None

    def open(self) -> None:
        """Opens the run and starts the thread; an outage is only reported."""
        self.spool.note()
        self._delivery = Delivery(self._environment)
        try:
            self._open_in_mlflow()
        except Outage as outage:
            self._report_down(outage)
        self._thread = threading.Thread(target=self._work, name="mlflow-delivery", daemon=True)
        self._thread.start()

    def _open_in_mlflow(self) -> None:
        assert self._delivery is not None
        self._header.run_id = self._delivery.open(self._header, search=self._down_since is not None)
        self.spool.note()

    def add(self, event: Event) -> None:
        """Adds an event with the present time; does nothing unless active."""
        if not self.active:
            return
        event["time"] = now_ms()
        with self._changed:
            self._pending.append(event)
            self._changed.notify_all()

    def close(self, status: Status) -> None:
        """Ends the run: waits as long as MLflow keeps receiving, then leaves the rest in the spool.

        It waits some seconds for an answer and at most ten minutes altogether, less for a stage that failed.
        """
        if self._thread is None:
            return
        started = time.monotonic()
        with self._changed:
            self._pending.append({"kind": "end", "status": status, "time": now_ms()})
            self._closing_until = started + _PATIENCE_SECONDS[status]
            events = list(self._pending)
            self._changed.notify_all()
        if len(events) > 1:  # should the process be killed while it waits
            self.spool.keep(events)
        self._wait_while_delivering(started, status)
        self._thread = None
        with self._changed:
            left = list(self._pending)
        if not left:
            self.spool.clear()
            return
        reason = self._failure or (
            self._trouble
            if self._down_since is not None
            else f"MLflow did not receive everything within {time.monotonic() - started:.0f} s"
        )
        kept = f"kept in .erv/spool for the next `{command_for('MLflow', self._environment.workspace)}`"
        where = kept if self.spool.keep(left) else "lost"
        logger.warning("%s; %d events of %s are %s", reason, len(left), self._header.address, where)

    def _wait_while_delivering(self, started: float, status: Status) -> None:
        """Returns once everything is delivered, or nothing was for a while, or it takes too long."""
        last = started + _LONGEST_CLOSE_SECONDS[status]
        announced = False
        while True:
            with self._changed:
                before, now = len(self._pending), time.monotonic()
                if not before or self._failure is not None:
                    return
                patience = max(0.0, min(_PATIENCE_SECONDS[status], last - now))
                self._closing_until = now + patience
                progress = self._changed.wait_for(partial(self._moved, before), patience + 2.0)
            if not progress:
                return
            if not announced and time.monotonic() - started > _SILENT_CLOSE_SECONDS:
                announced = True
                logger.info("%s: delivering the last %d events to MLflow", self._header.address, before)

    def _moved(self, before: int) -> bool:
        return len(self._pending) < before or self._failure is not None

    def _work(self) -> None:
        """The thread. An unforeseen error ends it and is named; the stage continues."""
        try:
            self._deliver_all()
        except Exception as error:
            text = self._environment.mask(" ".join(str(error).split()))[:300]
            with self._changed:
                self._failure = f"delivery to MLflow has stopped ({type(error).__name__}: {text})"
                self._changed.notify_all()
            logger.warning("%s; everything logged from now on is kept for later", self._failure)

    def _deliver_all(self) -> None:
        """Delivers in order, with growing pauses while MLflow is down."""
        pause = 1.0
        while True:
            with self._changed:
                while not self._pending and self._closing_until is None:
                    self._changed.wait()
                batch = list(self._pending)
                closing = self._closing_until
            if not batch:
                return
            try:
                self._deliver(batch)
                pause = 1.0
                self._report_up()
            except Outage as outage:
                self._report_down(outage)
                if not self._wait_and_spool(pause):
                    return
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            if closing is None:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing_until is not None, _BETWEEN_CALLS_SECONDS)

    def _wait_and_spool(self, seconds: float) -> bool:
        """Waits during an outage and writes incoming events to disk; returns False when no time is left.

        A stage that ends wakes the thread for a last attempt; a new metric doesn't.
        """
        with self._changed:
            closing = self._closing_until
        until = time.monotonic() + seconds
        if closing is not None:
            until = min(until, closing)
            if until <= time.monotonic():
                return False
        written = 0
        while True:
            with self._changed:
                events = list(self._pending)
            if len(events) != written:  # outside the lock: an outage must not block the stage
                self.spool.keep(events)
                written = len(events)
            rest = min(until - time.monotonic(), _SPOOL_SECONDS)
            if rest <= 0:
                return True
            with self._changed:
                if self._changed.wait_for(lambda: self._closing_until != closing, rest):
                    return True

    def _deliver(self, batch: list[Event]) -> None:
        assert self._delivery is not None
        if self._header.run_id is None:
            self._open_in_mlflow()
        assert self._header.run_id is not None
        for count in self._delivery.deliver(self._header.run_id, batch):
            with self._changed:
                del self._pending[:count]
                self._changed.notify_all()

    def _report_down(self, outage: Outage) -> None:
        text = self._environment.mask(str(outage))
        before, self._trouble = self._trouble, text if isinstance(outage, Unusable) else _OUT_OF_REACH
        if self._down_since is None or self._trouble != before:
            detail = "" if isinstance(outage, Unusable) else f": {text}"
            logger.warning("%s; continuing and buffering what is logged%s", self._trouble, detail)
        if self._down_since is None:
            self._down_since = time.monotonic()

    def _report_up(self) -> None:
        if self._down_since is not None:
            logger.info(
                "MLflow is back after %.0f s; delivering the buffer", time.monotonic() - self._down_since
            )
            self._down_since = None
