"""A flow leaves its tasks only when none is at work, whatever comes in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from erv.pipeline import StageCancelledError
from erv.pipeline.undisturbed import undisturbed
from flows.at_work import AtWork


@pytest.fixture(autouse=True)
def signals_count() -> Iterator[None]:
    """Jobs in the background of a shell ignore SIGINT, and so would these tests and what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def task(at_work: AtWork, begun: threading.Event, stop: threading.Event, done: list[str]) -> None:
    with at_work.task():
        begun.set()
        assert stop.wait(60)
        time.sleep(0.3)  # as a stage that writes its last lines
        done.append("task")


def test_an_error_of_the_flow_stops_the_tasks_and_waits_for_them() -> None:
    begun, stop, done = threading.Event(), threading.Event(), list[str]()

    def flow() -> None:
        with AtWork(stop.set) as at_work:
            threading.Thread(target=task, args=(at_work, begun, stop, done)).start()
            assert begun.wait(60)
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        flow()
    assert done == ["task"]


def test_a_second_ctrl_c_does_not_cut_the_wait_short() -> None:
    begun, stop, again, done = threading.Event(), threading.Event(), threading.Event(), list[str]()

    def impatient() -> None:
        assert stop.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        again.set()

    def flow() -> None:
        with AtWork(stop.set) as at_work:
            # The task can't end before the signal, which would hit the test runner then.
            threading.Thread(target=task, args=(at_work, begun, again, done)).start()
            threading.Thread(target=impatient).start()
            assert begun.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow()
    assert done == ["task"]


def test_no_task_begins_once_the_flow_has_left() -> None:
    with AtWork(lambda: None) as at_work:
        pass
    with pytest.raises(StageCancelledError), at_work.task():
        pytest.fail("it began")


def test_nobody_is_stopped_if_nothing_went_wrong() -> None:
    stop = threading.Event()
    with AtWork(stop.set) as at_work, at_work.task():
        pass
    assert not stop.is_set()


def test_a_signal_counts_after_the_wait() -> None:
    done: list[str] = []

    def flow() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("waited")
        done.append("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        flow()
    assert done == ["waited"]


def test_ctrl_c_twice_leaves_no_process_of_a_command(tmp_path: Path) -> None:
    command = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print('up', flush=True)\n"
    caller = f"""
        import sys
        from erv.pipeline import run_guarded
        command = [sys.executable, "-c", {command + "time.sleep(60)"!r}]
        try:
            run_guarded(
                command, what="it", on_line=lambda line: print(line, flush=True), cancelled=bool, grace=2.0
            )
        finally:
            print("left", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(caller)], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        asked = time.monotonic()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        assert process.stdout.readline() == "left\n"
        assert time.monotonic() - asked > 1.5, "the command ends after its two seconds of grace"
