"""Answers one request of a client, from its head to its last event; both APIs use it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request as HttpRequest

from erv.answering.events import LAST, Answer, Done, Error, Event, Started
from erv.answering.process import QueueFull, Ticket
from erv.answering.requests import Request
from erv.answering.told import ClientLeft, told
from erv.errors import EvaluationError
from erv.serve.engine import Engine, Unavailable
from erv.serve.metrics import Metrics
from erv.serve.rates import Pace
from erv.serve.versions import Version
from erv.web.errors import Refused

_STATUS = {"clip": 400, "cancelled": 503, "failed": 500, "died": 503}
_CODES = {"clip": "invalid_clip", "cancelled": "cancelled", "failed": "model_failed", "died": "model_died"}
_SOON = {"Retry-After": "2"}


@dataclass(frozen=True)
class Taken:
    """A request that was taken on.

    Attributes:
        ticket: its place.
        version: what answers it.
        http: the request of the client; its body has been read.
    """

    ticket: Ticket
    version: Version
    http: HttpRequest


class Service:
    """Takes requests on and follows them.

    Args:
        engine: answers.
        metrics: counts.
        batch: requests that are answered together.
        seconds: within which a request must be answered.
    """

    def __init__(self, engine: Engine, metrics: Metrics, *, batch: int, seconds: float) -> None:
        self.engine, self._metrics, self._seconds = engine, metrics, seconds
        self._pace = Pace(batch)

    async def take(self, http: HttpRequest, read: Callable[[], Awaitable[Request]]) -> Taken:
        """Reads a request and takes it on; it has a place in the queue before it is read.

        Args:
            http: the client's.
            read: reads its body.

        Raises:
            Refused: 429, too many wait; 503, no process answers at the moment; or what `read` raises.
        """
        try:
            with self.engine.place() as place:
                ticket, version = place.submit(await read())
        except QueueFull as error:
            after = str(self._pace.until_free(self.engine.waiting))
            raise Refused(
                429, str(error), code="queue_full", headers={"Retry-After": after, "Connection": "close"}
            ) from None
        except (Unavailable, EvaluationError):
            raise Refused(
                503,
                "the model is being started again; ask again soon",
                code="model_unavailable",
                headers=_SOON,
            ) from None
        return Taken(ticket, version, http)

    async def events(self, taken: Taken) -> AsyncGenerator[Event]:
        """Yields what is said about a request; its end cancels what isn't finished.

        Raises:
            ClientLeft: the connection was closed.
            Refused: 504, it took too long.
        """
        ended = False
        started = time.monotonic()
        try:
            async with contextlib.aclosing(told(taken.ticket, taken.http, self._seconds)) as events:
                async for event in events:
                    ended = isinstance(event, LAST)
                    if isinstance(event, Started):
                        started = time.monotonic()
                    if isinstance(event, Done):
                        self._metrics.answered(event)
                        # Without the time that it waited, which grows with the queue.
                        self._pace.add(event.seconds.decode + time.monotonic() - started)
                    yield event
        except Refused:
            ended = True
            raise
        finally:
            if not ended:  # however that shows: the connection, or whoever read these events, is gone
                self._metrics.left()

    async def answer(self, taken: Taken) -> tuple[Answer, Done]:
        """The whole answer.

        Raises:
            Refused: there is none, or nobody waits for it any more (499, as nginx calls it).
        """
        found: dict[type[Event], Event] = {}
        try:
            async for event in self.events(taken):
                if isinstance(event, Error):
                    raise refused(event)
                found[type(event)] = event
        except ClientLeft:
            raise Refused(499, "the client closed the connection") from None
        answer, done = found.get(Answer), found.get(Done)
        if not isinstance(answer, Answer) or not isinstance(done, Done):
            raise RuntimeError("the events of a request ended without an answer")
        return answer, done


def refused(error: Error) -> Refused:
    """The refusal that the event of an error is, with its status."""
    headers = _SOON if error.code == "died" else None
    return Refused(_STATUS[error.code], error.sentence, code=_CODES[error.code], headers=headers)
