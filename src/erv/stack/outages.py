"""Waits, for a while and with a word, for a server that was there and is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

from erv.environment import Environment
from erv.errors import ErvError, StackError
from erv.stack.reach import unreachable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# As long as `erv stack up` or a supervisor takes to bring a server back.
PATIENCE_SECONDS = 120.0
_PAUSE_SECONDS = 2.0
_WATCH_SECONDS = 3.0
_RECENT_SECONDS = 60.0  # a client of a server that went away tries for a while before it gives up


def _never() -> bool:
    return False


def wait_for(
    name: str,
    url: str,
    workspace: str | Path = ".",
    *,
    patience: float = PATIENCE_SECONDS,
    say: Callable[[str], None] = logger.warning,
    cancelled: Callable[[], bool] = _never,
) -> None:
    """Returns once a server answers; says so if it has to wait.

    Args:
        name: `S3`, `MLflow`, `Prefect`.
        url: an address that it answers.
        workspace: whose servers the remedy is about.
        patience: seconds to wait.
        say: takes a sentence.
        cancelled: looked at between attempts; True ends the waiting.

    Raises:
        StackError: it did not answer all the time; the message has the remedy.
    """
    from funcy import retry

    def ask() -> None:
        if (fault := unreachable(name, url, workspace)) and not cancelled():
            raise StackError(fault)

    started = time.monotonic()
    try:
        ask()
    except StackError as error:
        say(f"{error}; waiting for up to {patience:.0f} s")
        retry(max(1, round(patience / _PAUSE_SECONDS)), errors=StackError, timeout=_PAUSE_SECONDS)(ask)()
        say(f"{name} answers again after {time.monotonic() - started:.0f} s")


def through_outages(
    environment: Environment,
    call: Callable[[], T],
    *,
    mlflow: bool = False,
    patience: float = PATIENCE_SECONDS,
    say: Callable[[str], None] = logger.warning,
    cancelled: Callable[[], bool] = _never,
) -> T:
    """Makes a call that needs the object store, waiting for the store before it; repeats it once.

    It is repeated if it fails while a server is away, or was in the minute before.

    Args:
        environment: where the servers are.
        call: may be made twice, such as bringing a stage up to date.
        mlflow: it needs MLflow too.
        patience: seconds to wait for each server.
        say: takes a sentence.
        cancelled: whether to stop waiting.

    Raises:
        StackError: a server did not come back.
        ErvError: as the call.
    """
    servers = {"S3": environment.s3_endpoint}
    if mlflow and environment.mlflow_uri:
        servers["MLflow"] = f"{environment.mlflow_uri}/health"
    known = {name: url for name, url in servers.items() if url}

    def wait() -> None:
        for name, url in known.items():
            wait_for(name, url, environment.workspace, patience=patience, say=say, cancelled=cancelled)

    wait()
    with _Watched(known, environment.workspace) as watched:
        try:
            return call()
        except ErvError as error:
            if cancelled() or not watched.was_away():
                raise
            say(f"{error}; a server went away meanwhile")
    wait()
    return call()


class _Watched:
    """Servers that are asked every few seconds: one that restarts may be back before its absence is told."""

    def __init__(self, servers: Mapping[str, str], workspace: Path) -> None:
        self._servers, self._workspace = servers, workspace
        self._left = threading.Event()
        self._away: float | None = None
        self._thread = threading.Thread(target=self._watch, name="outages", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._left.set()  # not waited for: it may be within a request

    def was_away(self) -> bool:
        """Whether one is away, or was a moment ago."""
        self._look()
        return self._away is not None and time.monotonic() - self._away < _RECENT_SECONDS

    def _watch(self) -> None:
        while not self._left.wait(_WATCH_SECONDS):
            self._look()

    def _look(self) -> None:
        if any(unreachable(*server, self._workspace) for server in self._servers.items()):
            self._away = time.monotonic()
