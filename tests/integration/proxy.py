"""Real faults: a relay between a client and a server that counts bytes, slows down, cuts and refuses."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit


class Proxy:
    """Relays TCP connections to one server.

    Attributes:
        received: bytes that came from the server so far.
        cut_after: once that many have come, every connection is reset; None for never.
        delay: seconds to wait before each chunk is passed on.
        refused: S3 error codes by a part of the request line; such requests never reach the server.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._guard = threading.Lock()
        self.received, self.delay = 0, 0.0
        self.cut_after: int | None = None
        self.refused: dict[str, str] = {}
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[int]]:
        """The bytes that came from the server meanwhile, in a list that holds them at the end."""
        before, count = self.received, [0]
        yield count
        count[0] = self.received - before

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._up, args=(client, server), daemon=True).start()
                threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                line = data.partition(b"\r\n")[0].decode("latin-1")
                code = next((code for part, code in self.refused.items() if part in line), None)
                if code is None:
                    server.sendall(data)
                else:
                    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
                    head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n"
                    client.sendall((head + body).encode())
        self._end(server)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if self.delay:
                    time.sleep(self.delay)
                with self._guard:
                    if self.cut_after is not None and self.received + len(data) > self.cut_after:
                        # RST instead of a tidy end.
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                        client.shutdown(socket.SHUT_RD)  # wakes the other thread, which holds it open
                        client.close()
                        break
                    self.received += len(data)
                client.sendall(data)
        self._end(client)
        self._end(server)

    def _end(self, side: socket.socket) -> None:
        with contextlib.suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
        side.close()
