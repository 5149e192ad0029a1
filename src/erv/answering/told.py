"""What a request is told while it is answered, for asyncio; a client that leaves cancels it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest

from erv.answering.events import LAST, Event
from erv.answering.process import Ticket
from erv.web.errors import Refused


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


async def told(ticket: Ticket, http: HttpRequest, seconds: float) -> AsyncGenerator[Event]:
    """Yields the events of a request up to the last.

    However this ends, the request is not answered any further.

    Args:
        ticket: of the request.
        http: its body has been read.
        seconds: it must be answered within these.

    Raises:
        ClientLeft: the connection was closed.
        Refused: 504, it took too long.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    def pass_on() -> None:
        for event in ticket.events():
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody reads
                loop.call_soon_threadsafe(events.put_nowait, event)

    async def watch() -> None:
        while (await http.receive())["type"] != "http.disconnect":
            pass
        ticket.cancel()
        events.put_nowait(None)

    threading.Thread(target=pass_on, name="told", daemon=True).start()
    watching = asyncio.create_task(watch())
    end = loop.time() + seconds
    try:
        while (event := await asyncio.wait_for(events.get(), end - loop.time())) is not None:
            yield event
            if isinstance(event, LAST):
                return
        raise ClientLeft
    except TimeoutError:
        raise Refused(504, f"not answered within {seconds:g} s, so it was given up", code="timeout") from None
    finally:
        watching.cancel()
        ticket.cancel()
