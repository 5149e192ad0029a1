"""Starts a web server of ours, says where it is, and ends it in order."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from erv.errors import SettingsError, StackError

LOOPBACK = "127.0.0.1"
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def hosts_of(host: str, further: Collection[str] = ()) -> tuple[str, ...]:
    """The names that a server answers by.

    Args:
        host: the address that it listens on.
        further: names that the user allows, such as `models.example` or `*.lab.example`.

    Raises:
        SettingsError: a name has a star elsewhere than in front, or is empty.
    """
    for name in further:
        if not name or "*" in name.removeprefix("*.") or "/" in name:
            raise SettingsError(
                f"{name!r} can't be the name of a host; name it as in models.example or *.lab.example"
            )
    address = _address(host)
    own = () if address.is_unspecified else (f"[{address}]" if address.version == 6 else str(address),)
    return tuple(dict.fromkeys((*_LOCAL_NAMES, *own, *further)))


def require_key(host: str, key: str | Collection[str] | None, variable: str) -> None:
    """Refuses to listen where other machines can ask, without a key.

    Args:
        host: the address to listen on.
        key: of the server, or several.
        variable: of the environment, from which the key comes.

    Raises:
        SettingsError: there is none; or `host` is not an IP address.
    """
    if not _address(host).is_loopback and not key:
        raise SettingsError(
            f"{host} can be reached from other machines, and there is no key; set {variable}, or listen on"
            f" {LOOPBACK}"
        )


def run(
    app: ASGIApp,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    announce: Callable[[str], None],
    grace_seconds: int = 10,
) -> None:
    """Serves until SIGTERM or Ctrl-C, then finishes the requests in flight and returns.

    Args:
        app: see `erv.web.site.site`.
        host: an IP address; see `require_key`.
        port: 0 for any that is free.
        announce: called with the address, such as `http://127.0.0.1:8000`, once the server answers there.
        grace_seconds: how long requests in flight may go on after the signal.

    Raises:
        SettingsError: `host` is not an IP address.
        StackError: the port is taken or not allowed, or the application can't start.
    """
    with listening(host, port) as ear:
        server = Server(app, announce, ear, grace_seconds)
        # uvicorn raises the signal again once it has ended, which would end us with a traceback.
        before = {number: signal.signal(number, server.end) for number in _SIGNALS}
        try:
            server.run(sockets=[ear])
        except SystemExit as error:  # how uvicorn says that the application could not start
            raise StackError(f"the server at {address_of(ear)} could not start; its log says why") from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Server(uvicorn.Server):
    """A uvicorn server that says where it is as soon as it answers there.

    Args:
        app: as in `run`.
        announce: as in `run`.
        ear: the socket.
        grace_seconds: as in `run`.
    """

    def __init__(
        self, app: ASGIApp, announce: Callable[[str], None], ear: socket.socket, grace_seconds: int = 10
    ) -> None:
        config = uvicorn.Config(
            app,
            access_log=False,  # addresses can have tokens in them
            log_level="warning",
            proxy_headers=False,  # anybody can send them
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=grace_seconds,
        )
        super().__init__(config)
        self._announce, self._ear = announce, ear

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then announces the address."""
        await super().startup(sockets=sockets)
        if self.started:
            self._announce(address_of(self._ear))

    def end(self, _number: int, _frame: FrameType | None) -> None:
        """Ends the server, as a signal handler."""
        self.should_exit = True


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens until the end of the block; raises as `run`."""
    version = _address(host).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        ear = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise StackError(
            f"can't listen on {host} port {port}: {reason}; choose another with --port, or 0 for any that is"
            " free"
        ) from error
    with ear:
        yield ear


def address_of(ear: socket.socket) -> str:
    """The address of a socket as browsers take it."""
    host, port = ear.getsockname()[:2]
    return f"http://[{host}]:{port}" if ear.family == socket.AF_INET6 else f"http://{host}:{port}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(LOOPBACK if host == "localhost" else host)
    except ValueError as error:
        raise SettingsError(
            f"{host!r} is not an IP address to listen on; name one, such as {LOOPBACK} or 0.0.0.0"
        ) from error
