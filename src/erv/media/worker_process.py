"""A worker process: how it is started, what is sent to it, how much memory and which rights it has.

It is a plain child process rather than one of `multiprocessing`: a Dask worker is a daemon and can't have
such children, and a plain child imports only what decoding needs, not its parent's main module. Arrays are
sent after the pickle as raw memory and read directly into place. Inside the pickle they would take more than
three times as long (3.0 ms against less than 1.0 for the 1.3 MB of a clip at 224x224).

Its environment holds nothing but what Python and its libraries need, in particular no keys of the object
store.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from erv.media.confinement import confine
from erv.media.handed import can_hand_over, received_files, send_files

# Time for a process to start and import its decoders; only one that hangs takes longer.
START_SECONDS = 300.0
# Bytes that always fit into the pipe while nobody reads it, so that handing over an item never blocks.
_PIPE_BYTES = 32_768
_COUNT = struct.Struct("<I")
# What the pickle of an array needs.
_OF_NUMPY = frozenset({"_frombuffer", "_reconstruct", "ndarray", "dtype", "scalar"})
# A pickle, and the buffers that follow it.
_Packed = tuple[bytes, list[memoryview]]
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


class _Answers(pickle.Unpickler):
    """Reads a worker's answers: arrays, exceptions and plain data classes, and calls nothing else.

    A file may have taken over the decoder, and with it the pipe. The worker is confined, but we are not.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _OF_NUMPY:
            return super().find_class(module, name)
        if module in sys.modules and "." not in name:  # never import what an answer names
            found = getattr(sys.modules[module], name, None)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, Exception)):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an answer")


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
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid())]
            # Our own interpreter and our own code: nothing of the outside is in the arguments.
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
            )
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

    def receive(self) -> tuple[str, Any]:
        """The next answer, `ready`, `result`, `memory`, `error` or `fault`, and a value.

        The value of `ready` is what the kernel enforces, if the worker is confined; that of an `error` is the
        exception. A `fault` means that the exception or the result can't be pickled; its value is the
        traceback as text.

        Raises:
            EOFError, OSError: the process ended.
            RuntimeError: the answer can't be read.
        """
        head = self.pipe.recv_bytes()
        (count,) = _COUNT.unpack_from(head)
        sizes = struct.unpack_from(f"<{count}Q", head, _COUNT.size)
        buffers = [_read(self.pipe.fileno(), size) for size in sizes]
        pickled = memoryview(head)[_COUNT.size + 8 * count :]
        try:
            kind, value = _Answers(io.BytesIO(pickled), buffers=buffers).load()
        except Exception as error:  # whatever it is, the process has not ended
            raise RuntimeError(f"a result of a media worker can't be unpickled: {error!r}") from error
        return kind, value

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
        code = self.process.wait()
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
        _send(pipe, _packed("ready", given))
        while True:
            _send(pipe, _answer(function, pipe.recv_bytes()))
    except (EOFError, KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        return


def _environment() -> dict[str, str]:
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


def _answer(function: Callable[[Any], Any], message: bytes) -> _Packed:
    """The reply for an item: its result, or what its computation raised."""
    try:
        result = function(pickle.loads(message))  # noqa: S301  (from our parent)
    except MemoryError:
        return _packed("memory", None)
    except Exception as error:  # passed to the parent, which knows which ones are expected
        return _packed_error(error)
    try:
        return _packed("result", result)
    except MemoryError:
        return _packed("memory", None)
    except Exception as error:  # never an expected one: the function itself has finished
        return _fault(error)


def _packed_error(error: Exception) -> _Packed:
    """The exception, or its traceback if it would not survive pickling."""
    try:
        pickled, views = _packed("error", error)
        _, copy = pickle.loads(pickled, buffers=views)  # noqa: S301  (our own)
    except Exception:  # a pickle runs code of the exception's class
        return _fault(error)
    return (pickled, views) if type(copy) is type(error) else _fault(error)


def _fault(error: Exception) -> _Packed:
    return _packed("fault", "".join(traceback.format_exception(error)))


def _packed(kind: str, value: Any) -> _Packed:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps((kind, value), protocol=5, buffer_callback=buffers.append)
    return pickled, [buffer.raw() for buffer in buffers]


def _send(pipe: Connection, packed: _Packed) -> None:
    pickled, views = packed
    sizes = struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
    pipe.send_bytes(_COUNT.pack(len(views)) + sizes + pickled)
    for view in views:
        sent = 0
        while sent < view.nbytes:
            sent += os.write(pipe.fileno(), view[sent:])


def _read(descriptor: int, size: int) -> Any:
    """Reads exactly this many bytes; raises EOFError if the process ends first."""
    import numpy as np

    buffer = np.empty(size, np.uint8)
    view, got = buffer.data, 0
    while got < size:
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
