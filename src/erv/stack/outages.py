"""Waits, for a while and with a word, for a server that was there and is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from erv.environment import Environment
from erv.errors import ErvError, StackError, StorageError
from erv.stack.reach import unreachable

if TYPE_CHECKING:
    from erv.storage.store import Store

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
    _wait(name, lambda: unreachable(name, url, workspace), patience, say, cancelled)


def _wait(
    name: str,
    fault_of: Callable[[], str | None],
    patience: float,
    say: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> None:
    from funcy import retry

    def ask() -> None:
        if (fault := fault_of()) and not cancelled():
            raise StackError(fault)

    started = time.monotonic()
    try:
        ask()
    except StackError as error:
        say(f"{error}; waiting for up to {patience:.0f} s")
        # By the clock, too: a server that hangs holds each attempt for seconds.
        again = retry(
            max(1, round(patience / _PAUSE_SECONDS)),
            errors=StackError,
            timeout=_PAUSE_SECONDS,
            filter_errors=lambda _error: time.monotonic() - started < patience,
        )
        again(ask)()
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
    servers = _servers(environment, mlflow=mlflow)

    def wait() -> None:
        for name, fault_of in servers.items():
            _wait(name, fault_of, patience, say, cancelled)

    wait()
    with _Watched(servers) as watched:
        try:
            return call()
        except ErvError as error:
            if cancelled() or not watched.was_away():
                raise
            say(f"{error}; a server went away meanwhile")
    wait()
    return call()


def _servers(environment: Environment, *, mlflow: bool) -> dict[str, Callable[[], str | None]]:
    """What says of each server why it can't be reached; None if it answers."""
    found: dict[str, Callable[[], str | None]] = {}
    workspace = environment.workspace
    if environment.s3_endpoint:
        found["S3"] = partial(unreachable, "S3", environment.s3_endpoint, workspace)
    elif environment.has_storage:
        from erv.storage.store import open_store

        # Opened once: a new one would fetch its credentials anew at each look.
        store = open_store(environment, patient=False)
        found["S3"] = partial(_amazon, store, f"s3://{environment.dvc_bucket}/remote")
    if mlflow and environment.mlflow_uri:
        found["MLflow"] = partial(unreachable, "MLflow", f"{environment.mlflow_uri}/health", workspace)
    return found


def _amazon(store: Store, uri: str) -> str | None:
    """Why Amazon's S3 gives no answer for the bucket of DVC's remote.

    Asked as the store does it: its address depends on bucket and region, and only that one may be open to us.
    """
    from erv.storage.errors import is_unanswered

    try:
        store.exists(uri)
    except StorageError as error:
        return str(error) if is_unanswered(error) else None
    return None


class _Watched:
    """Servers that are asked every few seconds: one that restarts may be back before its absence is told."""

    def __init__(self, servers: Mapping[str, Callable[[], str | None]]) -> None:
        self._servers = servers
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
        if any(fault_of() for fault_of in self._servers.values()):
            self._away = time.monotonic()
