"""Clients of `erv serve` that ask at the same time, for `benchmarks/serving.py`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

_PATIENCE = 1200.0  # seconds for an answer; the machine may be busy


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        status: of HTTP.
        first: seconds until the first token reached the client; None without one.
        whole: seconds until `done` did; None if there was an error.
        tokens: that were written.
    """

    status: int
    first: float | None = None
    whole: float | None = None
    tokens: int = 0

    @property
    def failed(self) -> bool:
        """Whether it got neither an answer nor a refusal because the queue was full."""
        return self.whole is None and self.status != 429


@dataclass(frozen=True)
class Load:
    """What some clients saw.

    Attributes:
        seconds: from the first request to the last answer.
        asked: all requests.
        most_waiting: the most requests that the server said wait.
    """

    seconds: float
    asked: tuple[Asked, ...]
    most_waiting: int

    @property
    def answered(self) -> list[Asked]:
        """Those that were answered."""
        return [one for one in self.asked if one.whole is not None]


def load(address: str, clip: bytes, clients: int, each: int) -> Load:
    """Lets clients ask about a clip, each one request after the other."""
    return asyncio.run(_load(address, clip, clients, each))


async def _load(address: str, clip: bytes, clients: int, each: int) -> Load:
    limits = httpx.Limits(max_connections=clients + 1)
    async with httpx.AsyncClient(
        base_url=address, limits=limits, trust_env=False, timeout=_PATIENCE
    ) as client:
        ended = asyncio.Event()
        watching = asyncio.create_task(_watch(client, ended))
        began = time.monotonic()

        async def one_client() -> list[Asked]:
            return [await _ask(client, clip) for _ in range(each)]

        found = await asyncio.gather(*(one_client() for _ in range(clients)))
        seconds = time.monotonic() - began
        ended.set()
        return Load(seconds, tuple(one for asked in found for one in asked), await watching)


async def _ask(client: httpx.AsyncClient, clip: bytes) -> Asked:
    began, first = time.monotonic(), None
    stream = {"Accept": "text/event-stream"}
    async with client.stream("POST", "/explain", files={"content": clip}, headers=stream) as answer:
        if answer.status_code != 200:
            return Asked(answer.status_code)
        async for event in _events(answer):
            if event["kind"] == "token" and first is None:
                first = time.monotonic() - began
            elif event["kind"] == "done":
                usage = event["usage"]
                return Asked(200, first, time.monotonic() - began, usage["completion_tokens"])
    return Asked(answer.status_code)


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, object]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def _watch(client: httpx.AsyncClient, ended: asyncio.Event) -> int:
    most = 0
    while not ended.is_set():
        text = (await client.get("/metrics")).text
        (waiting,) = [line for line in text.splitlines() if line.startswith("erv_waiting ")]
        most = max(most, int(float(waiting.split()[1])))
        await asyncio.sleep(0.1)
    return most
