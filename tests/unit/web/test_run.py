"""Where a server listens, by which names it answers, and how it starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from erv.errors import SettingsError, StackError
from erv.web.run import hosts_of, require_key, run
from tests.support.websites import local_site


async def answer(_: Request) -> Response:
    return PlainTextResponse("here")


APP = Starlette(routes=[Route("/", answer)])


@pytest.mark.parametrize(
    ("host", "further", "names"),
    [
        ("127.0.0.1", (), ("127.0.0.1", "localhost", "[::1]")),
        ("0.0.0.0", ("models.example",), ("127.0.0.1", "localhost", "[::1]", "models.example")),
        ("10.0.0.5", ("*.lab.example",), ("127.0.0.1", "localhost", "[::1]", "10.0.0.5", "*.lab.example")),
        ("2001:db8::1", (), ("127.0.0.1", "localhost", "[::1]", "[2001:db8::1]")),
    ],
)
def test_names(host: str, further: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert hosts_of(host, further) == names


@pytest.mark.parametrize("name", ["*", "", "a.*.example", "*x", "http://a"])
def test_wrong_names(name: str) -> None:
    with pytest.raises(SettingsError, match="can't be the name of a host"):
        hosts_of("127.0.0.1", [name])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_at_home_no_key_is_needed(host: str) -> None:
    require_key(host, None, "ERV_SERVE_KEY")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5"])
def test_outside_a_key_is_needed(host: str) -> None:
    require_key(host, "secret", "ERV_SERVE_KEY")
    for key in (None, ""):
        with pytest.raises(SettingsError, match="set ERV_SERVE_KEY"):
            require_key(host, key, "ERV_SERVE_KEY")


def test_an_address_is_an_ip_address() -> None:
    with pytest.raises(SettingsError, match=r"'models\.example' is not an IP address"):
        require_key("models.example", "secret", "ERV_SERVE_KEY")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port}: Address already in use; choose another"):
            run(APP, port=port, announce=print)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_when_told(number: signal.Signals) -> None:
    said: list[str] = []
    answers: list[httpx.Response] = []

    def ask(address: str) -> None:
        answers.append(httpx.get(address, trust_env=False))
        os.kill(os.getpid(), number)

    def announce(address: str) -> None:
        said.append(address)
        threading.Thread(target=ask, args=(address,)).start()

    before = signal.getsignal(number)
    run(local_site(APP), announce=announce)
    assert [item.text for item in answers] == ["here"]
    assert "server" not in answers[0].headers
    assert signal.getsignal(number) is before
    with pytest.raises(httpx.ConnectError):
        httpx.get(said[0], trust_env=False)


def test_an_application_that_cannot_start() -> None:
    @asynccontextmanager
    async def broken(_: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no")
        yield

    with pytest.raises(StackError, match="could not start"):
        run(Starlette(lifespan=broken), announce=print)
