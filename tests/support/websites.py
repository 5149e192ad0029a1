"""Real servers of our web applications on free ports of 127.0.0.1, in a thread or as a program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import ASGIApp

from erv.web.run import LOOPBACK, Server, hosts_of, listening
from erv.web.site import site

_START_SECONDS = 120
_ADDRESS = re.compile(r"https?://\S+:\d+")


@contextmanager
def website(app: ASGIApp) -> Iterator[str]:
    """Serves an application in a thread; yields its address, such as `http://127.0.0.1:40000`."""
    addresses: list[str] = []
    with listening(LOOPBACK, 0) as ear:
        server = Server(app, addresses.append, ear, grace_seconds=5)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [ear]}, daemon=True)
        thread.start()
        end = time.monotonic() + _START_SECONDS
        while not addresses:
            assert thread.is_alive(), "the application did not start"
            assert time.monotonic() < end, f"the application did not start within {_START_SECONDS} s"
            time.sleep(0.01)
        try:
            yield addresses[0]
        finally:
            server.should_exit = True
            thread.join(30)


def local_site(app: Starlette, *, most_bytes: int = 1 << 20, key: str | None = None) -> ASGIApp:
    """An application behind gate, limits and headers, as the commands serve it."""
    return site(app, hosts=hosts_of(LOOPBACK), most_bytes=most_bytes, key=key)


class Program:
    """A server that runs as a program.

    Attributes:
        process: the process, in a group of its own.
        address: such as `http://127.0.0.1:40000`.
        log: what it writes, both streams.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process, self.address, self.log = process, address, log

    def kill(self) -> None:
        """kill -9, of the program and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def program(
    arguments: Sequence[str], log: Path, *, folder: Path | None = None, more: Mapping[str, str] | None = None
) -> Iterator[Program]:
    """Runs `erv ARGUMENTS` until the end of the block; ready when it has written its address.

    Args:
        arguments: of `erv`, such as `("serve", "--port", "0")`.
        log: file for what it writes.
        folder: where it runs; here if None.
        more: variables of the environment, beside those of this process.
    """
    code = "from erv.cli import main; main()"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(more or {})},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Program(process, _address_in(log, process), log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)


def _address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + _START_SECONDS
    while True:
        text = log.read_text(errors="replace")
        if found := _ADDRESS.search(text):
            return found[0]
        assert process.poll() is None, f"the program ended with {process.returncode}: {text}"
        assert time.monotonic() < end, f"no address within {_START_SECONDS} s: {text}"
        time.sleep(0.05)
