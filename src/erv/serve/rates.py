"""How many requests one client may send, and when a place in the queue should be free again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from erv.web.errors import Refused, answer_refused

_MOST_CLIENTS = 10_000  # remembered at once
_WEIGHT = 0.2  # of the newest answer in the average


class Buckets:
    """A bucket of tokens per client: a request takes one, and they come back evenly.

    Args:
        per_minute: tokens that come back in a minute, above 0.
        burst: tokens that a bucket holds, at least 1.
        clock: seconds.
    """

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        if per_minute <= 0 or burst < 1:
            raise ValueError(f"per_minute is {per_minute} and burst is {burst}; above 0 and at least 1")
        self._rate, self._burst, self._clock = per_minute / 60.0, burst, clock
        self._kept: dict[str, tuple[float, float]] = {}

    def wait(self, client: str) -> float:
        """Takes a token; 0 if there was one, and otherwise the seconds until there is one."""
        now = self._clock()
        tokens, since = self._kept.get(client, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if tokens < 1.0:
            self._kept[client] = (tokens, now)
            return (1.0 - tokens) / self._rate
        self._kept[client] = (tokens - 1.0, now)
        if len(self._kept) > _MOST_CLIENTS:
            self._forget(now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Forgets the clients whose buckets are full again, and then the ones that were not seen longest."""
        full = [
            client
            for client, (tokens, since) in self._kept.items()
            if tokens + (now - since) * self._rate >= self._burst
        ]
        oldest = sorted(self._kept, key=lambda client: self._kept[client][1])[: _MOST_CLIENTS // 2]
        for client in full or oldest:
            del self._kept[client]


class LimitedRate:
    """Answers 429 to a client that sends too many requests; those that only read don't count.

    A client is a key, and without keys an address.

    Args:
        app: the server, behind the gate.
        buckets: of the clients.
        on_refused: called for each such answer.
    """

    def __init__(self, app: ASGIApp, buckets: Buckets, on_refused: Callable[[], None]) -> None:
        self._app, self._buckets, self._on_refused = app, buckets, on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            seconds = self._buckets.wait(_client(scope))
            if seconds > 0:
                self._on_refused()
                refused = Refused(
                    429,
                    "too many requests; ask again after the seconds in Retry-After",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": str(math.ceil(seconds)), "Connection": "close"},
                )
                await answer_refused(HTTPConnection(scope), refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _client(scope: Scope) -> str:
    user = scope.get("user")
    if user is not None and user.is_authenticated:
        return str(user.display_name)
    return str((scope.get("client") or ("unknown",))[0])


class Pace:
    """How long answers take lately.

    Args:
        batch: requests that are answered together.
    """

    def __init__(self, batch: int) -> None:
        self._batch, self._seconds = batch, 1.0

    def add(self, seconds: float) -> None:
        """Notes how long the work for an answer took, without what it waited."""
        self._seconds += _WEIGHT * (seconds - self._seconds)

    def until_free(self, waiting: int) -> int:
        """Whole seconds after which one of so many waiting requests should have been taken on, at least 1."""
        return max(1, math.ceil(self._seconds * max(1.0, waiting / self._batch) / 2))
