"""Starts workers quickly: one process that has the decoders imported forks each of them.

It is for those who decode every clip in a fresh process. Starting Python and importing the decoders takes a
third of a second of CPU, a fork a hundredth. What a worker may do is the same, and so are its limits and its
end: after the fork it runs the same code (`erv.media.worker_process.serve`). The process that forks
(`erv.media.nursery_process`) never reads a file of anybody.

Why not the fork server of `multiprocessing`: it hands its environment on, runs the main module in its
children, lets them outlive whoever asked for them, and tells only their numbers, which another process may
have by the time that one is killed.

Each worker is a program of its own where it can't be confined, as it could then reach into the process that
forks the next, or where processes have no descriptors (macOS, Windows, Linux before 5.3).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from erv.media.confinement import tried
from erv.media.handed import can_hand_over
from erv.media.nursery_process import NUMBER
from erv.media.worker_process import START_SECONDS, Started, environment, start_alone

logger = logging.getLogger(__name__)

_END_SECONDS = 5.0
_LONGEST_REASON = 1000  # bytes
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from erv.media.nursery_process import nurse; nurse(int(sys.argv[2]), int(sys.argv[3]))"
)


class Nursery:
    """Starts workers by forking; use as a context manager, or call `close`. Any thread may ask.

    Its process and all workers end with the thread that started it, which to Linux is the parent: the one
    that asked first, or that asked when it had to be started again.

    Args:
        prepare: a module-level function that imports what decoding needs, see `erv.media.workers.isolated`.
        functions: those that workers will apply, whose modules are imported too.
    """

    def __init__(self, prepare: Callable[[], None], functions: Sequence[Callable[[Any], Any]] = ()) -> None:
        self._message = pickle.dumps((prepare, tuple(functions)), protocol=5)
        self._lock = threading.Lock()
        self._forks = can_fork()
        self._nurse: _Nurse | None = None

    def begin(self) -> None:
        """Starts the process that forks, without waiting for it, so that the first worker comes soon."""
        with self._lock:
            if self._forks and self._nurse is None:
                self._nurse = _Nurse(self._message)

    def start(self, theirs: socket.socket) -> Started:
        """Starts a worker process, which gets this end of its pipe.

        A process that forks and has ended is started again, once.

        Raises:
            RuntimeError: it ended again.
            OSError: the system can't start another process.
        """
        with self._lock:
            ended = ""
            while self._forks:
                if self._nurse is None:
                    self._nurse = _Nurse(self._message)
                try:
                    if not (unfit := self._nurse.unfit()):
                        return self._nurse.fork(theirs)
                except (EOFError, ConnectionError, TimeoutError):
                    again, ended = bool(ended), self._nurse.obituary()
                    self._end()
                    if again:
                        raise RuntimeError(
                            f"a media worker could not start: the process that forks it {ended}, twice"
                        ) from None
                    logger.warning("the process that forks media workers %s; started again", ended)
                else:
                    self._end()
                    self._forks = False
                    logger.warning("media workers are not forked, which would be faster: %s", unfit)
        return start_alone(theirs)

    def close(self) -> None:
        """Ends the process that forks, and with it its workers."""
        with self._lock:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self) -> None:
        if self._nurse is not None:
            self._nurse.end()
        self._nurse = None


class Forked:
    """A forked worker, as `erv.media.worker_process.Started`.

    It is held by a descriptor, which never means another process as its number may.
    """

    def __init__(self, pid: int, descriptor: int, birth: socket.socket) -> None:
        self.pid = pid
        self._descriptor, self._birth = descriptor, birth
        self._code: int | None = None

    def kill(self) -> None:
        """Kills it, unless it was waited for."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal; raises subprocess.TimeoutExpired."""
        if self._code is None:
            ended = select.poll()
            ended.register(self._descriptor, select.POLLIN)
            if not ended.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired("a forked worker", timeout or 0.0)
            self._code = self._told()
            self._birth.close()
            os.close(self._descriptor)
        return self._code

    def _told(self) -> int:
        """The code that its parent tells; if that has ended, the worker was killed with it."""
        self._birth.settimeout(_END_SECONDS)
        try:
            said = self._birth.recv(NUMBER.size)
        except OSError:
            said = b""
        return int(NUMBER.unpack(said)[0]) if said else -signal.SIGKILL


class _Nurse:
    """The process that forks, and the connection to it."""

    def __init__(self, message: bytes) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
            try:
                # Our own interpreter and our own code: nothing of the outside is in the arguments.
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOTSTRAP, *arguments],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=environment(),
                )
            except BaseException:
                self._control.close()
                raise
        self._control.settimeout(START_SECONDS)
        self._unfit: str | None = None
        with contextlib.suppress(OSError):  # it died at once, which the next call finds out too
            self._control.send(message)

    def unfit(self) -> str:
        """Waits until it is prepared; why it must not be forked, empty if it may.

        Raises:
            EOFError, ConnectionError, TimeoutError: it ended or hangs.
        """
        if self._unfit is None:
            said = self._control.recv(_LONGEST_REASON)
            if not said:
                raise EOFError
            self._unfit = json.loads(said)["unfit"]
        return self._unfit

    def fork(self, theirs: socket.socket) -> Forked:
        """Lets it fork a worker with this pipe.

        Raises:
            EOFError, ConnectionError, TimeoutError: it ended or hangs.
            OSError: it can't fork.
        """
        ours, birth = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with birth:
                socket.send_fds(self._control, [b"f"], [theirs.fileno(), birth.fileno()])
            ours.settimeout(START_SECONDS)
            said, found, _, _ = socket.recv_fds(ours, NUMBER.size, 1, socket.MSG_CMSG_CLOEXEC)
            if not said:
                raise EOFError
            (number,) = NUMBER.unpack(said)
            if number < 0:
                raise OSError(-number, os.strerror(-number))
        except BaseException:
            ours.close()
            raise
        return Forked(number, found[0], ours)

    def obituary(self) -> str:
        """How it ended."""
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return "did not answer"
        return f"was killed (signal {-code})" if code < 0 else f"ended ({code})"

    def end(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.wait()
        self._control.close()


def can_fork() -> bool:
    """Whether workers may be forked here: they can be held by descriptors and confined."""
    if not sys.platform.startswith("linux") or not can_hand_over():
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
        return not tried().gaps
    except OSError:
        return False
