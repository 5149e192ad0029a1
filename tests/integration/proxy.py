"""Real faults: a relay between a client and a server that counts bytes, slows down, cuts and refuses."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

_START = re.compile(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER: RST instead of a tidy end


class Proxy:
    """Relays TCP connections to one HTTP server.

    All faults can be set and changed at any time; several can be active at once.

    Attributes:
        endpoint: where it listens; stays the same through `refuse`.
        received: bytes that came from the server so far.
        cut_after: once that many have come, every connection is reset; None for never.
        cut_share: share of answers (0 to 1) whose body is cut at a random byte, with a reset.
        status_share: share of requests (0 to 1) that are answered with `status` and never reach the server.
        status: the code of those answers: 500, 503.
        delay: seconds to wait before each chunk is passed on.
        refused: S3 error codes by a part of the request line; such requests never reach the server.
        faults: how many answers were cut and requests answered with `status` so far.
    """

    def __init__(self, endpoint: str, seed: int = 0) -> None:
        parts = urlsplit(endpoint)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._guard = threading.Lock()
        self._random = random.Random(seed)
        self._open: set[socket.socket] = set()
        self.received, self.delay, self.faults = 0, 0.0, 0
        self.cut_after: int | None = None
        self.cut_share, self.status_share, self.status = 0.0, 0.0, 503
        self.refused: dict[str, str] = {}
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._passes = threading.Event()
        self._passes.set()
        self._listen()

    def close(self) -> None:
        """Takes no more connections."""
        # A thread that waits in accept() keeps the port open until it is woken.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextlib.contextmanager
    def refuse(self) -> Iterator[None]:
        """Refuses connections and resets the open ones, as a killed server does; listens again at the end."""
        self.close()
        with self._guard:
            victims = list(self._open)
        for side in victims:
            _reset(side)
        try:
            yield
        finally:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._listen()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Passes nothing on, in either direction, as a cable that was pulled: no end, no reset, no answer.

        What was sent meanwhile goes on its way at the end, as TCP sends it again.
        """
        self._passes.clear()
        try:
            yield
        finally:
            self._passes.set()

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[int]]:
        """The bytes that came from the server meanwhile, in a list that holds them at the end."""
        before, count = self.received, [0]
        yield count
        count[0] = self.received - before

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = listener.accept()
                self._passes.wait()
                try:
                    server = socket.create_connection(self._server)
                except OSError:  # the server is down: so are we
                    _reset(client)
                    continue
                with self._guard:
                    self._open |= {client, server}
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _happens(self, share: float) -> bool:
        with self._guard:
            hit = share > 0 and self._random.random() < share
            self.faults += hit
        return hit

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        dropped = 0  # bytes of a refused request's body that are still to come
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                self._passes.wait()
                if dropped:
                    dropped -= len(data)
                    continue
                line = data.partition(b"\r\n")[0].decode("latin-1")
                code = next((code for part, code in self.refused.items() if part in line), None)
                if code is not None:
                    answer = (403, "Forbidden", code)
                elif _START.match(data) and self._happens(self.status_share):
                    answer = (self.status, "Injected", "ServiceUnavailable")
                else:
                    server.sendall(data)
                    continue
                head, _, rest = data.partition(b"\r\n\r\n")
                if b"100-continue" not in head.lower() and (length := _LENGTH.search(head)):
                    dropped = int(length.group(1)) - len(rest)
                client.sendall(_refusal(*answer))
        self._end(server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                self._passes.wait()
                if self.delay:
                    time.sleep(self.delay)
                with self._guard:
                    late = self.cut_after is not None and self.received + len(data) > self.cut_after
                if late:
                    _reset(client)
                    break
                length = (
                    _LENGTH.search(data.partition(b"\r\n\r\n")[0]) if data.startswith(b"HTTP/1.") else None
                )
                if length and int(length.group(1)) and self._happens(self.cut_share):
                    self._pass_some(data, int(length.group(1)), client, server)
                    _reset(client)
                    break
                with self._guard:
                    self.received += len(data)
                client.sendall(data)
        self._end(client)
        self._end(server)

    def _pass_some(self, data: bytes, length: int, client: socket.socket, server: socket.socket) -> None:
        """Passes on the head of an answer and a random part of its body, but never all of it."""
        head = data.index(b"\r\n\r\n") + 4
        with self._guard:
            left = head + self._random.randrange(length)
        while data and left > 0:
            client.sendall(data[:left])
            with self._guard:
                self.received += min(left, len(data))
            left -= len(data)
            if left > 0:
                data = server.recv(1 << 16)
        time.sleep(0.01)  # a reset discards what the client has not read yet

    def _end(self, side: socket.socket) -> None:
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
        side.close()
        with self._guard:
            self._open.discard(side)


def _reset(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        side.shutdown(socket.SHUT_RD)  # wakes the other thread, which holds it open
        side.close()


def _refusal(number: int, reason: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
    return f"HTTP/1.1 {number} {reason}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
