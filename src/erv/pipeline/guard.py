"""Runs a command for as long as its parent lives: `python -m erv.pipeline.guard [--grace SECONDS] --
COMMAND...`.

The parent keeps the write end of the guard's standard input open. When that closes, because the parent wants
the command stopped or was killed in any way, the guard stops everything the command started. It is gentle
first: it sends SIGTERM to what the command runs (the stage below `dvc`), so that a stage can close its MLflow
run and `dvc` can release its locks. After the grace time it kills everything. What is left when the command
has ended is killed as well, even in a session of its own.
Exits with the command's own code, or 128 + the signal that ended it.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING

from erv.pipeline.process import (
    GRACE_SECONDS,
    GUARD_VARIABLE,
    SHELLS,
    become_subreaper,
    set_parent_death_signal,
)

if TYPE_CHECKING:
    import psutil

_STEP_SECONDS = 0.05
_ORPHANS_SECONDS = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m erv.pipeline.guard", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args(arguments)
    if os.getpgrp() != os.getpid():
        os.setsid()
    become_subreaper()

    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stop_asked: list[int] = []

    def note(signum: int, _frame: FrameType | None) -> None:
        stop_asked.append(signum)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, note)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)  # only to wake the poll below

    child = subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, GUARD_VARIABLE: str(os.getpid())},
        process_group=0,
        preexec_fn=set_parent_death_signal,
    )
    poller = select.poll()
    poller.register(0, select.POLLIN | select.POLLHUP)
    poller.register(wake_read, select.POLLIN)
    while child.poll() is None:
        for descriptor, _events in poller.poll():
            if descriptor == wake_read:
                os.read(wake_read, 4096)
            elif not os.read(0, 4096):
                stop_asked.append(signal.SIGTERM)
                poller.unregister(0)
        if stop_asked:
            stop(child, options.grace)
            break
    _kill_group(child.pid)  # a helper that outlived the command must not write later
    code = child.wait()
    _kill_descendants()  # nor one in a session of its own
    return code if code >= 0 else 128 - code


def stop(child: subprocess.Popen[bytes], grace: float) -> None:
    """Ends the command's whole process group: gently, and by force after `grace` seconds."""
    for process in _leaves(child.pid):
        _signal(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        if child.poll() is not None and not _group_alive(child.pid):
            return
        time.sleep(_STEP_SECONDS)
    _kill_group(child.pid)


def _leaves(pid: int) -> list[psutil.Process]:
    """What to terminate first: the command's children (looking through shells), or itself if it has none."""
    import psutil

    try:
        process = psutil.Process(pid)
        found: list[psutil.Process] = []
        pending = process.children()
        while pending:
            candidate = pending.pop()
            below = candidate.children() if candidate.name() in SHELLS else []
            pending.extend(below)
            if not below:
                found.append(candidate)
        return found or [process]
    except psutil.NoSuchProcess:
        return []


def _group_alive(group: int) -> bool:
    """Whether a process of the group is still running; reaps the orphans that we adopted."""
    while True:
        try:
            # Only adopted orphans of this group; Popen has already reaped the child itself.
            pid, _status = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            return True
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _kill_descendants() -> None:
    """Kills what is left of what the command started; orphans have become our children."""
    import psutil

    deadline = time.monotonic() + _ORPHANS_SECONDS
    while left := psutil.Process().children(recursive=True):
        for process in left:
            _signal(process.pid, signal.SIGKILL)
        _reap()
        if time.monotonic() > deadline:  # one that the kernel can't end now, in a broken file system, say
            return
        time.sleep(_STEP_SECONDS)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _signal(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())
