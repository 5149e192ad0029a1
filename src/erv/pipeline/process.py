"""Processes that never outlive the pipeline that started them.

A stage whose `dvc` is gone must not keep writing, because it would later overwrite the outputs of the next
attempt. Three layers guarantee that, whichever process is killed and however (including `kill -9`):

- the flow holds the write end of a pipe; `erv.pipeline.guard` reads its end and stops everything when the
  pipe closes;
- `dvc` is started with the kernel's parent-death signal, so it dies with the guard;
- a stage calls `die_with_parent`, so it dies with `dvc` and with the guard.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Iterable

GUARD_VARIABLE = "ERV_GUARD_PID"
GRACE_SECONDS = 10.0  # that the guard leaves a stage to end by itself
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox"})
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 1.0


def die_with_parent() -> None:
    """Makes this process die as soon as the pipeline that started it is gone.

    Watches the parent, the guard named in `ERV_GUARD_PID`, and the shell's parent if there is a shell in
    between. Workers of `multiprocessing` watch the process that created them. A stage started by hand (no
    guard, no dvc) is left alone, so that `nohup python -m stages.grpo` still works.
    """
    worker_of = multiprocessing.parent_process()
    guard = os.environ.get(GUARD_VARIABLE)
    if worker_of is None and guard is None and "DVC_ROOT" not in os.environ:
        return
    parent = os.getppid()
    set_parent_death_signal()
    if os.getppid() != parent:  # it died between the two calls, so the kernel won't notify us
        _die()
    watched = set()
    if worker_of is not None and worker_of.pid is not None:
        watched.add(worker_of.pid)
    elif guard is not None and guard.isdigit():
        watched.add(int(guard))
    else:
        watched.update(_parent_of_shell(parent))
    if not sys.platform.startswith("linux"):
        watched.add(parent)
    watched.discard(os.getpid())
    watch(watched - ({parent} if sys.platform.startswith("linux") else set()))


def watch(pids: Iterable[int]) -> None:
    """Kills this process when one of `pids` ends; a daemon thread sleeps in the kernel until then."""
    for pid in sorted(pids):
        threading.Thread(target=_wait_and_die, args=(pid,), name=f"watch-{pid}", daemon=True).start()


def set_parent_death_signal(signum: int = signal.SIGKILL) -> None:
    """Asks the kernel to send `signum` when the parent dies (Linux; elsewhere nothing happens)."""
    _prctl(_PR_SET_PDEATHSIG, signum)


def become_subreaper() -> None:
    """Adopts orphaned descendants, so that they can be waited for (Linux; elsewhere nothing happens)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _parent_of_shell(pid: int) -> set[int]:
    """The parent of `pid` if `pid` is a shell, because `dvc` starts commands through one."""
    import psutil

    try:
        process = psutil.Process(pid)
        return {process.ppid()} if process.name() in SHELLS else set()
    except psutil.NoSuchProcess:
        _die()
        return set()


def _wait_and_die(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        _die()
    except (AttributeError, OSError):  # not Linux, or a sandbox without the call
        _poll_and_die(pid)
    else:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        while not poller.poll():
            pass
        _die()


def _poll_and_die(pid: int) -> None:
    import time

    import psutil

    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_POLL_SECONDS)
    except psutil.NoSuchProcess:
        pass
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
