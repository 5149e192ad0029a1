"""Attempts at a placed stage as the coordinator has them, on a real board and Prefect, without any worker."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from erv.environment import Environment, child_environment
from erv.errors import StorageError
from erv.pipeline import StageCancelledError, StageFailedError
from erv.remote import checkout
from erv.remote.board import Board
from erv.remote.checkout import Home
from erv.remote.request import Request
from erv.remote.work import work
from erv.settings import load_settings
from erv.stack import flow_runs
from erv.storage.store import open_store
from flows import attempt, placed, queued
from flows.attempt import Attempt, Lost, Waiting
from flows.placed import Placed
from flows.queued import Queued
from tests.integration.proxy import Proxy
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

MACHINE = load_settings(ROOT / "params.yaml").machine


@pytest.fixture(scope="module")
def pools(stack: Environment) -> None:
    variables = child_environment(stack)
    command = [sys.executable, "-m", "flows.shared_pools", "one", "two"]
    subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True)


@pytest.fixture
def board(stack: Environment, request: pytest.FixtureRequest) -> Board:
    return Board(open_store(stack), stack.dvc_bucket, request.node.name)


def wanted(stack: Environment) -> Request:
    return Request(
        stage="tune",
        upstream=(),
        commit="0" * 40,
        inputs="1",
        files={},
        bucket=stack.dvc_bucket,
        experiment="erv",
        asked_by="t",
    )


def silent(_line: str) -> None:
    pass


def begun(board: Board, attempt: int = 1) -> str:
    return str(board.begin(attempt, {})["nonce"])


def test_a_board_that_was_removed_begins_anew(stack: Environment, board: Board, pools: None) -> None:
    """Prefect gave the run of that time, which had ended, so every attempt was lost at once."""

    def run_of(nonce: str) -> str:
        one = Attempt(stack, board, wanted(stack), 1, nonce, "one", 1, silent)
        assert one.step() is None
        assert one._run is not None
        return one._run.id

    first = begun(board)
    assert run_of(first) == run_of(first), "all who wait share it"
    for info in board.store.list(board.uri):
        board.store.delete(info.uri)
    assert run_of(begun(board)) != run_of(first)


def test_who_joins_watches_the_pool_that_was_asked(stack: Environment, board: Board, pools: None) -> None:
    nonce, asked, said = begun(board), list[str](), list[str]()
    Attempt(stack, board, wanted(stack), 1, nonce, "one", 1, asked.append).step()
    joined = Attempt(stack, board, wanted(stack), 1, nonce, "two", 1, said.append)
    joined.step()
    assert joined.pool == "one"
    assert joined._run is not None
    assert said[1] == f"waits for flow run {joined._run.id}, which is in work pool 'one' already"
    assert asked == [f"asked work pool 'one' for it (flow run {joined._run.id})"]
    assert said[0] == "somebody else has asked work pool 'one' for it, in place of 'two'"


def test_a_cancellation_reaches_a_worker_that_prefect_could_not_tell_of(
    stack: Environment, board: Board
) -> None:
    away = dataclasses.replace(stack, prefect_api_url="http://127.0.0.1:9/api")
    nonce = begun(board)
    with Waiting(board, "here") as waiting:
        one = Attempt(away, board, wanted(stack), 1, nonce, "one", 1, silent)
        one.cancel(waiting)
    assert board.superseded(1) == "cancelled by who asked for it"


@pytest.mark.parametrize("others", [False, True])
def test_a_cancellation_while_the_store_is_away_reaches_prefect(
    stack: Environment, board: Board, pools: None, others: bool
) -> None:
    """Nobody could tell whether somebody else waits, so the stage went on for nobody."""
    said: list[str] = []
    relay = Proxy(str(stack.s3_endpoint))
    try:
        there = open_store(dataclasses.replace(stack, s3_endpoint=relay.endpoint))
        if others:
            board.wait("elsewhere")
        behind = Board(there, stack.dvc_bucket, board.key)
        with Waiting(behind, "here") as waiting:
            one = Attempt(stack, behind, wanted(stack), 1, begun(board), "one", 1, said.append)
            one.step()
            assert one._run is not None
            with relay.refuse():
                one.cancel(waiting)
        run = flow_runs.look(stack, one._run.id)
    finally:
        relay.close()
    assert run is not None
    assert run.state == ("SCHEDULED" if others else "CANCELLED")
    assert ("somebody else waits for it too, so it goes on there" in said) == others


def test_a_list_that_fails_leaves_no_note_behind(stack: Environment, board: Board) -> None:
    """It counted for a minute as somebody who waits."""
    relay = Proxy(str(stack.s3_endpoint))
    relay.refused["list-type=2"] = "AccessDenied"
    try:
        there = open_store(dataclasses.replace(stack, s3_endpoint=relay.endpoint))
        with suppress(StorageError), Waiting(Board(there, stack.dvc_bucket, board.key), "here"):
            pass
    finally:
        relay.close()
    assert not board.others_wait("elsewhere")


@pytest.mark.parametrize("runs", [False, True])
def test_a_cancellation_of_who_is_cut_off_costs_others_an_attempt(
    stack: Environment, board: Board, pools: None, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """The store was away for one of two coordinators alone; the other's stage failed."""
    monkeypatch.setattr(attempt, "_CANCEL_SECONDS", 0.0)
    monkeypatch.setattr(attempt, "_ENDED_SECONDS", -1.0)
    nonce, relay = begun(board), Proxy(str(stack.s3_endpoint))
    try:
        there = open_store(dataclasses.replace(stack, s3_endpoint=relay.endpoint))
        behind = Board(there, stack.dvc_bucket, board.key)
        with Waiting(behind, "here") as waiting:
            one = Attempt(stack, behind, wanted(stack), 1, nonce, "one", 1, silent)
            two = Attempt(stack, board, wanted(stack), 1, nonce, "one", 1, silent)
            two.step()
            assert two._run is not None
            if runs:
                flow_runs.set_state(stack, two._run.id, "RUNNING", "", force=True)
            one.step()
            with relay.refuse(), Waiting(board, "elsewhere"):
                one.cancel(waiting)
        if runs:  # as the worker says it
            flow_runs.set_state(stack, two._run.id, "CANCELLED", "tune: cancelled", force=True)
    finally:
        relay.close()
    with pytest.raises(Lost, match="somebody else cancelled it"):
        two.step()
    assert board.superseded(1) is not None


def test_a_cancellation_in_prefect_fails_the_stage(
    stack: Environment, board: Board, pools: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_ENDED_SECONDS", -1.0)
    one = Attempt(stack, board, wanted(stack), 1, begun(board), "one", 1, silent)
    one.step()
    assert one._run is not None
    flow_runs.set_state(stack, one._run.id, "CANCELLED", "", force=True)
    with pytest.raises(StageFailedError, match="was cancelled in Prefect; run the same command again"):
        one.step()


def test_a_killed_run_of_the_same_clone_is_nobody_else(
    stack: Environment, board: Board, tmp_path: Path
) -> None:
    """For a minute after a `kill -9`, Ctrl-C left the stage to a coordinator that was the killed one."""
    here = Placed(stack, MACHINE, (), {"tune": "one"}, (), "flow", {}, lambda: False)
    board.wait(here._who)  # and was killed, so the note stays
    again = Placed(stack, MACHINE, (), {"tune": "one"}, (), "flow", {}, lambda: False)
    elsewhere = dataclasses.replace(stack, workspace=tmp_path)
    with Waiting(board, again._who) as waiting:
        assert not waiting.others()
        with Waiting(board, dataclasses.replace(again, environment=elsewhere)._who):
            assert waiting.others()
        nonce = begun(board)
        away = dataclasses.replace(stack, prefect_api_url="http://127.0.0.1:9/api")
        Attempt(away, board, wanted(stack), 1, nonce, "one", 1, silent).cancel(waiting)
    assert board.superseded(1) == "cancelled by who asked for it"


@pytest.fixture
def losing(board: Board) -> Any:
    """Gives up each attempt as soon as it begins, up to a number; the one after that fails."""
    stop = threading.Event()

    def lose(until: int, progress: Callable[[int], None]) -> None:
        attempt = 1
        while attempt <= until and not stop.wait(0.05):
            try:
                board.request(attempt)
            except StorageError:
                continue
            progress(attempt)
            board.supersede(attempt, "its machine was taken away")
            attempt += 1
        while not stop.wait(0.05):
            try:
                board.request(attempt)
            except StorageError:
                continue
            board.finish(attempt, {"failed": "the end"})
            board.beat(attempt, {"count": 1, "worker": "w", "ended": True})
            return

    started: list[threading.Thread] = []

    def start(until: int, progress: Callable[[int], None]) -> None:
        started.append(threading.Thread(target=lose, args=(until, progress), daemon=True))
        started[-1].start()

    yield start
    stop.set()
    for thread in started:
        thread.join(10)


@pytest.fixture
def coordinator(stack: Environment, pools: None, monkeypatch: pytest.MonkeyPatch) -> Placed:
    monkeypatch.setattr(placed, "POLL_SECONDS", 0.1)
    return Placed(stack, MACHINE, (), {"tune": "one"}, (), "flow", {}, lambda: False)


def test_five_lost_attempts_fail_the_stage(
    stack: Environment, board: Board, coordinator: Placed, losing: Any
) -> None:
    losing(9, lambda _attempt: None)
    with (
        Waiting(board, "here") as waiting,
        pytest.raises(StageFailedError, match="5 attempts in a row were lost, the last because its machine"),
    ):
        coordinator._result(board, wanted(stack), waiting, silent)


def test_attempts_that_get_further_are_not_in_vain(
    stack: Environment, board: Board, coordinator: Placed, losing: Any
) -> None:
    """Machines that are taken away every few hours: each attempt goes on where the one before was."""

    def progress(attempt: int) -> None:
        folder = f"{board.attempt_uri(attempt)}/checkpoints/tune/key/one/checkpoint-{attempt}"
        board.store.write(b"{}", f"{folder}/complete.json")

    losing(7, progress)
    with Waiting(board, "here") as waiting:
        result, known = coordinator._result(board, wanted(stack), waiting, silent)
    assert (result, known) == ({"failed": "the end"}, False)
    assert board.newest() == 8


def test_a_board_that_is_damaged_ends_the_waiting(
    stack: Environment, board: Board, coordinator: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for a server that is away, and waited for without end."""
    monkeypatch.setattr(attempt, "REFUSED_SECONDS", 1.0)
    board.store.write(b"{", f"{board.attempt_uri(1)}/pulse.json")
    said: list[str] = []
    told = (
        r"tune: .*/pulse.json: not what erv writes there; delete it and run again; it has been so for 0 min"
    )
    with Waiting(board, "here") as waiting, pytest.raises(StorageError, match=told):
        coordinator._result(board, wanted(stack), waiting, said.append)
    assert sum("WARNING" in line for line in said) == 1


@pytest.mark.parametrize("status", [None, 503])
def test_a_store_that_is_away_is_waited_for_and_told_again(
    stack: Environment, board: Board, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    """Amazon's own, which has no address in the settings, was taken for one that answers and refuses."""
    monkeypatch.setattr(attempt, "REFUSED_SECONDS", 0.5)
    monkeypatch.setattr(attempt, "REMIND_SECONDS", 0.5)
    here = dataclasses.replace(stack, s3_endpoint=None)
    said: list[str] = []
    relay = Proxy(str(stack.s3_endpoint))
    relay.status, relay.status_share = status or 0, 1.0 if status else 0.0
    try:
        behind = Board(open_store(dataclasses.replace(stack, s3_endpoint=relay.endpoint)), "b", "k")
        with nullcontext() if status else relay.refuse(), pytest.raises(StorageError) as fault:
            behind.wait("here")
    finally:
        relay.close()
    one = Attempt(here, board, wanted(stack), 1, "nonce", "one", 1, said.append)
    for _ in range(3):
        one.away(fault.value)
        time.sleep(0.7)
    assert len(said) == 3
    assert said[0].endswith("the stage goes on, waiting")
    assert said[2].endswith("it has been so for 0 min")


def test_a_store_that_refuses_ends_the_waiting(
    stack: Environment, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "REFUSED_SECONDS", 0.5)
    here = dataclasses.replace(stack, s3_endpoint=None)
    one = Attempt(here, board, wanted(stack), 1, "nonce", "one", 1, silent)
    relay = Proxy(str(stack.s3_endpoint))
    relay.refused["PUT"] = "InvalidAccessKeyId"
    try:
        behind = Board(open_store(dataclasses.replace(stack, s3_endpoint=relay.endpoint)), "b", "k")
        with pytest.raises(StorageError) as fault:
            behind.wait("here")
    finally:
        relay.close()
    one.away(fault.value)
    time.sleep(0.7)
    with pytest.raises(StorageError, match="once that is mended, run the same command again"):
        one.away(fault.value)


def test_a_home_that_another_worker_holds_loses_the_attempt_alone(
    stack: Environment, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder may be fetching gigabytes. The stage failed, and another worker could have run it."""
    monkeypatch.setattr(checkout, "_PATIENCE_SECONDS", 0.6)
    nonce = str(board.begin(1, wanted(stack).document())["nonce"])
    with Home(tmp_path / "home").alone(), pytest.raises(StageCancelledError, match="has held this home for"):
        work(stack, tmp_path / "home", board, 1, pool="one", cancelled=lambda: False)
    assert board.result(1) is None
    with pytest.raises(Lost, match=r"has held this home for 0.01 min; .*`fuser "):
        Attempt(stack, board, wanted(stack), 1, nonce, "one", 1, silent).step()


def test_what_a_stage_waits_for_in_a_pool_that_is_served(
    stack: Environment, board: Board, pools: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited without a word while other stages, or a pause, held the pool."""
    monkeypatch.setattr(queued, "_FIRST_SECONDS", 0.0)
    said: list[str] = []

    def look() -> str:
        Queued(stack, said.append).look("two")
        return said[-1]

    assert look().endswith("0 stages run there, and its workers have not taken this one yet")
    nonce = begun(board)
    one = Attempt(stack, board, wanted(stack), 1, nonce, "two", 1, silent)
    one.step()
    assert one._run is not None
    flow_runs.set_state(stack, one._run.id, "RUNNING", "", force=True)
    _prefect(stack, "set-concurrency-limit", "two", "1")
    assert look() == "waits in work pool 'two': 1 stage runs there, and its limit is 1"
    flow_runs.set_state(stack, one._run.id, "CANCELLED", "", force=True)
    _prefect(stack, "pause", "two")
    assert look() == "waits in work pool 'two': it is paused; `prefect work-pool resume two` has it go on"
    _prefect(stack, "resume", "two")
    several: list[str] = []
    waiting = Queued(stack, several.append)
    for _ in range(3):
        waiting.look("two")
    assert len(several) == 1


def _prefect(stack: Environment, *words: str) -> None:
    command = [sys.executable, "-m", "prefect", "work-pool", *words]
    subprocess.run(command, env=child_environment(stack), check=True, capture_output=True)
