"""A worker process: how it is started, what is sent to it, how much memory and which rights it has.

It is a plain child process rather than one of `multiprocessing`: a Dask worker is a daemon and can't have
such children, and a plain child imports only what decoding needs, not its parent's main module. Items reach
it as pickles; its answers are plain values and arrays (`erv.media.answers`), which are read directly into
place.

Starting Python and importing the decoders takes longer than decoding a short clip. Who needs a fresh process
per clip lets one that has them imported fork it (`erv.media.nursery`); the rest is the same.

Its environment holds nothing but what Python and its libraries need, in particular no keys of the object
store.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import select
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from erv.media.answers import LONGEST_HEAD, AnswerError, Packed, pack, unpack
from erv.media.confinement import confine
from erv.media.handed import can_hand_over, received_files, send_files

# Time for a process to start and import its decoders; only one that hangs takes longer.
START_SECONDS = 300.0
# Bytes that always fit into the pipe while nobody reads it, so that handing over an item never blocks.
_PIPE_BYTES = 32_768
_LENGTH = struct.Struct("<I")
_LONGEST_TRACE = 20_000  # characters
# A worker sends an answer at once; one that stops in the middle would stop us.
_ANSWER_SECONDS = 30.0
_END_SECONDS = 5.0
# The variables that a worker gets: what Python, its libraries and the tools that watch a test run need.
_KEPT_VARIABLES = (
    ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "TZ", "SYSTEMROOT", "VIRTUAL_ENV"),
    ("LANG", "LC_", "LD_", "DYLD_", "PYTHON", "COV", "OMP_", "OPENBLAS_", "MKL_", "DECORD_"),
)
# One thread each: there is a worker per core, and Landlock binds only the thread that asks for it.
_SINGLE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from erv.media.worker_process import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
)


class Started(Protocol):
    """A process that was started; these do what those of `subprocess.Popen` do."""

    pid: int

    def kill(self) -> None:
        """Kills it, unless it was waited for."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal; raises subprocess.TimeoutExpired."""


# Starts a worker process, which gets this end of its pipe.
Start = Callable[[socket.socket], Started]


def start_alone(theirs: socket.socket) -> Started:
    """Starts a worker as a program of its own; raises OSError if the system can't."""
    arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
    # Our own interpreter and our own code: nothing of the outside is in the arguments.
    return subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, *arguments],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env=environment(),
    )


class Worker:
    """A process, the pipe to it, and the items it was given.

    Attributes:
        queue: numbers of the items without an answer; it works on the first.
        ready: whether it is prepared.
        served: number of items it has answered.
        worn: whether it seems to keep memory of earlier items; it gets no more until that is clear.
        deadline: when the first item is late, on the monotonic clock, or None.
        limit: the time limit in seconds behind that deadline.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        prepare: Callable[[], None] | None,
        memory_mb: int | None,
        *,
        confined: bool = False,
        start: Start = start_alone,
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = start(theirs)
            except BaseException:
                ours.close()
                raise
        self.pipe = Connection(ours.detach())
        self.queue: deque[int] = deque()
        self.ready = False
        self.served = 0
        self.worn = False
        self.limit = START_SECONDS
        self.deadline: float | None = time.monotonic() + self.limit
        self._memory_mb = memory_mb
        self._resident = 0
        with contextlib.suppress(OSError):  # it died at once: the pipe will report how
            self.pipe.send((function, prepare, memory_mb, confined))

    def give(self, index: int, message: bytes, seconds: float, files: Sequence[Path] = ()) -> bool:
        """Hands over an item and the files it names, which are opened here.

        Returns:
            False if the process is gone, which the pipe then reports.

        Raises:
            OSError: a file can't be opened.
        """
        self.queue.append(index)
        if len(self.queue) == 1:
            self.start_clock(seconds)
        try:
            self.pipe.send_bytes(message)
        except OSError:
            return False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send_files(self.pipe.fileno(), files)
            return True
        return False

    def start_clock(self, seconds: float) -> None:
        """Starts the clock of the first item, if there is one."""
        self.limit = seconds
        self.deadline = time.monotonic() + seconds if self.queue else None

    def accepts_ahead(self, message: bytes) -> bool:
        """Whether an item may be sent before the current one is answered."""
        return len(self.queue) < 2 and len(message) <= _PIPE_BYTES

    def receive(self, most_bytes: int) -> tuple[str, Any]:
        """The next answer, `ready`, `result`, `memory` or `error`, and a plain value.

        The value of `ready` is what the kernel enforces, if the worker is confined. That of an `error` is a
        dict: `kinds` (of the exception, as `module:name`), `text` and `trace`.

        Args:
            most_bytes: that the arrays of an answer may take.

        Raises:
            EOFError, OSError: the process ended.
            AnswerError: it is no answer, or doesn't come whole in time.
        """
        now = time.monotonic()
        until = max(now + 1.0, min(self.deadline or math.inf, now + _ANSWER_SECONDS))
        (length,) = _LENGTH.unpack(_read(self.pipe.fileno(), _LENGTH.size, until))
        if not 0 < length <= LONGEST_HEAD:
            raise AnswerError(f"{length} bytes beside its arrays, at most {LONGEST_HEAD}")
        head = _read(self.pipe.fileno(), length, until).tobytes()
        return unpack(head, most_bytes, lambda size: _read(self.pipe.fileno(), size, until))

    def measure(self) -> None:
        """Records the resident memory of the process before its first item."""
        self._resident = _resident(self.process.pid)

    def is_too_large(self) -> bool:
        """Whether its resident memory grew by more than an item may take."""
        return self._memory_mb is not None and self.growth() > self._memory_mb * 1_000_000

    def growth(self) -> int:
        """Bytes of resident memory beyond what it had before its first item; 0 until it is ready."""
        return _resident(self.process.pid) - self._resident if self.ready else 0

    def obituary(self) -> str:
        """How the process ended."""
        try:
            code = self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # whoever has taken it over may close the pipe and stay
            return "decoder process closed its pipe"
        return f"decoder process died (signal {-code})" if code < 0 else f"decoder exited ({code})"

    def stop(self) -> None:
        """Kills the process."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()


def serve(descriptor: int, parent: int) -> None:
    """The loop of a worker process; ends when the pipe closes or the parent dies."""
    from erv.pipeline.process import set_parent_death_signal, watch

    set_parent_death_signal()
    if os.getppid() != parent:
        return
    if not sys.platform.startswith("linux"):
        watch({parent})
    pipe = Connection(descriptor)
    try:
        function, prepare, memory_mb, confined = pipe.recv()
        if prepare is not None:
            prepare()
        if memory_mb is not None:
            limit_memory(memory_mb)
        given = confine() if confined else None
        if confined and can_hand_over():
            most_bytes = None if memory_mb is None else memory_mb * 1_000_000
            function = partial(_with_files, function, descriptor, most_bytes)
        _send(pipe, pack("ready", given))
        while True:
            _send(pipe, _answer(function, pipe.recv_bytes()))
    except (EOFError, KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        return


def environment() -> dict[str, str]:
    """The variables of a worker."""
    names, prefixes = _KEPT_VARIABLES
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith(prefixes)}
    return {**kept, **_SINGLE_THREAD}


def _with_files(function: Callable[[Any], Any], pipe: int, most_bytes: int | None, item: Any) -> Any:
    """Applies the function to an item with copies of the files that the parent sends after it."""
    with received_files(pipe, len(item.files), most_bytes) as copies:
        return function(replace(item, files=copies))


def limit_memory(megabytes: int) -> None:
    """Lets this process allocate `megabytes` more than it has now; allocations beyond that fail at once.

    The kernel counts private writable memory that was requested (`RLIMIT_DATA`), touched or not. Without such
    a limit (macOS, Windows), only the parent's check of the resident memory applies.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    import psutil

    taken = psutil.Process().memory_info().data
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = taken + megabytes * 1_000_000
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _answer(function: Callable[[Any], Any], message: bytes) -> Packed:
    """The reply for an item: its result, or what its computation raised."""
    try:
        result = function(pickle.loads(message))  # noqa: S301  (from our parent)
    except MemoryError:
        return pack("memory", None)
    except Exception as error:  # the parent knows which ones are expected
        kinds = [f"{kind.__module__}:{kind.__qualname__}" for kind in type(error).__mro__]
        return _packed_error(error, kinds)
    try:
        return pack("result", result)
    except MemoryError:
        return pack("memory", None)
    except Exception as error:  # never an expected one: the function itself has finished
        return _packed_error(error, [])


def _packed_error(error: Exception, kinds: list[str]) -> Packed:
    trace = "".join(traceback.format_exception(error))[-_LONGEST_TRACE:]
    return pack("error", {"kinds": kinds, "text": str(error)[:_LONGEST_TRACE], "trace": trace})


def _send(pipe: Connection, packed: Packed) -> None:
    _write(pipe.fileno(), memoryview(_LENGTH.pack(len(packed.head)) + packed.head))
    for array in packed.arrays:
        _write(pipe.fileno(), array.reshape(-1).view("u1").data)


def _write(descriptor: int, content: memoryview) -> None:
    sent = 0
    while sent < len(content):
        sent += os.write(descriptor, content[sent:])


def _read(descriptor: int, size: int, until: float) -> Any:
    """uint8 [size] of exactly this many bytes.

    Raises:
        EOFError: the process ends first.
        AnswerError: they don't come until this time of the monotonic clock.
    """
    import numpy as np

    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    buffer = np.empty(size, np.uint8)
    view, got = buffer.data, 0
    while got < size:
        if not ready.poll(max(0.0, 1000 * (until - time.monotonic()))):
            raise AnswerError("it stops in the middle")
        more = os.readv(descriptor, [view[got:]])
        if not more:
            raise EOFError
        got += more
    return buffer


def _resident(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:  # the pipe will report it
        return 0
