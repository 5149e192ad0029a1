"""Servers that are killed in mid-run: waited for, or named with the remedy; nothing that was made is lost."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest

from erv.environment import Environment
from erv.errors import StackError, StorageError
from erv.stack import status, up
from erv.stack.outages import through_outages, wait_for
from tests.integration.proxy import Proxy
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(stack: Environment) -> Iterator[Proxy]:
    relay = Proxy(str(stack.s3_endpoint))
    yield relay
    relay.close()


@pytest.fixture
def hanging() -> Iterator[socket.socket]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def kill(stack: Environment, name: str) -> None:
    server = psutil.Process(next(s.pid for s in status(stack.workspace) if s.name == name) or 0)
    for process in [server, *server.children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)


@pytest.fixture
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scratch]:
    yield Scratch(tmp_path_factory.mktemp("outage"), stack)
    up(stack.workspace)  # whatever a test killed


def test_a_call_is_repeated_when_the_store_was_away(stack: Environment, proxy: Proxy) -> None:
    said: list[str] = []
    calls = []
    through = replace(stack, s3_endpoint=proxy.endpoint)
    away = proxy.refuse()

    def call() -> str:
        calls.append(1)
        if len(calls) == 1:
            away.__enter__()
            raise StorageError("cut off")
        return "done"

    def say(text: str) -> None:
        said.append(text)
        if "waiting" in text:
            away.__exit__(None, None, None)

    assert through_outages(through, call, say=say, patience=20) == "done"
    assert len(calls) == 2
    assert said[0] == "cut off; a server went away meanwhile"
    assert "can't be reached" in said[1]
    assert "waiting for up to 20 s" in said[1]
    assert said[2].startswith("S3 answers again after ")


def test_a_store_that_stays_away_ends_with_the_remedy(stack: Environment, proxy: Proxy) -> None:
    with proxy.refuse(), pytest.raises(StackError, match=r"S3 at .* can't be reached .*run `erv stack up`"):
        wait_for("S3", proxy.endpoint, patience=4, say=lambda _text: None)


def test_a_store_that_hangs_is_waited_for_by_the_clock(hanging: socket.socket) -> None:
    """Each attempt takes five seconds, which counted for nothing: 120 s were seven minutes."""
    endpoint = f"http://127.0.0.1:{hanging.getsockname()[1]}"
    with pytest.raises(StackError, match="can't be reached"):
        wait_for("S3", endpoint, patience=6, say=lambda _text: None)
    hanging.setblocking(False)
    attempts = 0
    with suppress(BlockingIOError):
        while True:
            hanging.accept()[0].close()
            attempts += 1
    assert attempts == 2, "not four"


def test_a_failure_is_not_repeated_while_the_servers_answer(stack: Environment) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise StorageError("ours")

    with pytest.raises(StorageError, match="ours"):
        through_outages(stack, call, mlflow=True)
    assert len(calls) == 1


@pytest.mark.parametrize("named", [True, False], ids=["ours", "Amazon's"])
def test_a_store_that_is_back_before_the_failure_is_told(
    stack: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    """A stage failed for good when S3 restarted in its middle: by then the store answered again.

    Amazon's own has no address in the settings, and was never asked.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    through = replace(stack, s3_endpoint=proxy.endpoint if named else None)
    calls, said = [], []

    def call() -> str:
        calls.append(1)
        if len(calls) == 1:
            with proxy.refuse():
                time.sleep(5)
            raise StorageError("cut off")
        return "done"

    assert through_outages(through, call, say=said.append) == "done"
    assert said == ["cut off; a server went away meanwhile"]


def test_a_refusal_of_amazons_s3_is_no_outage(
    stack: Environment, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
    theirs = replace(stack, s3_endpoint=None, s3_secret_key="wrong")
    calls, said = [], []

    def call() -> None:
        calls.append(1)
        raise StorageError("refused")

    with pytest.raises(StorageError, match="refused"):
        through_outages(theirs, call, say=said.append)
    assert (len(calls), said) == (1, [])


@pytest.mark.slow
def test_a_flow_waits_for_a_killed_store(stack: Environment, scratch: Scratch) -> None:
    scratch.control("make", "6")
    run = scratch.start("run")
    try:
        run.wait_for("begins")
        kill(stack, "s3")
        run.wait_for("waiting for up to", 90)
        up(stack.workspace)
        code = run.process.wait(200)
    finally:
        run.end()
    assert code == 0, run.text()
    assert "S3 answers again" in run.text()
    assert "4 stages: 4 ran" in run.text()


@pytest.mark.slow
def test_a_flow_goes_on_while_mlflow_is_away(stack: Environment, scratch: Scratch) -> None:
    """Stages keep what MLflow can't take; once it is back, it has all runs and figures."""
    scratch.control("make", "4")
    scratch.control("join", "1")
    run = scratch.start("run")
    try:
        run.wait_for("begins")
        kill(stack, "mlflow")
        run.wait_for("MLflow can't be reached", 60)
        up(stack.workspace)
        code = run.process.wait(200)
    finally:
        run.end()
    assert code == 0, run.text()
    assert "4 stages: 4 ran" in run.text()
    assert not list((scratch.folder / ".erv/spool").glob("*/events*")), "all was delivered in the end"
    runs = scratch.runs()
    for name in ("make@a", "make@b", "join"):
        assert [item.info.status for item in runs[name]] == ["FINISHED"]
        assert runs[name][0].data.metrics["work"] == 1.0
