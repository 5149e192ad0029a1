"""The process that forks workers (`erv.media.nursery`): imports what they need, then forks one per message.

A message brings two descriptors: the worker's end of its pipe, and a connection on which this process tells
the worker's number, with a descriptor of it, and later its exit code.

A forked worker inherits a copy of what this process has in memory, and nothing else: this process has a
single thread, shares no writable memory, has opened no file but those of its libraries, and has the
environment of a worker. Before it does anything else, a worker closes all descriptors but the standard ones
and its own pipe. Python's random numbers begin anew in each; decoding draws none from numpy or torch.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import pickle
import select
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from erv.media.worker_process import serve

# A message about a worker: its number or a negative error number, then its exit code.
NUMBER = struct.Struct("<q")
_LONGEST_MESSAGE = 65_536
_PROCESS = Path("/proc/self")


def nurse(descriptor: int, parent: int) -> None:
    """Forks workers until the connection closes or the parent dies; in each worker, is its loop.

    Args:
        descriptor: of the connection to the parent.
        parent: its number.
    """
    from erv.pipeline.process import set_parent_death_signal

    set_parent_death_signal()
    if os.getppid() != parent:
        return
    number = os.getpid()
    try:
        pipe = _forked(socket.socket(fileno=descriptor))
    except (KeyboardInterrupt, ConnectionError):
        return
    if pipe is not None:
        serve(pipe, number)  # it dies with this process


def unfit() -> str:
    """Why workers must not be forked from this process, empty if they may.

    A fork copies one thread only, and locks that others hold stay locked. Landlock binds the thread that asks
    for it. Through shared memory, a worker that is taken over could reach those that come later.
    """
    threads = sum(1 for _ in (_PROCESS / "task").iterdir())
    if threads != 1:
        return f"a library that they need runs {threads - 1} more threads"
    maps = (line.split(maxsplit=2)[1] for line in (_PROCESS / "maps").read_text().splitlines())
    if any(rights[1] == "w" and rights[3] == "s" for rights in maps):
        return "a library that they need shares its memory with other processes"
    return ""


def _prepare(control: socket.socket) -> None:
    """Imports what workers need, and says whether they may be forked."""
    import resource  # noqa: F401  # as `limit_memory` does

    import psutil  # noqa: F401

    prepare, _ = pickle.loads(control.recv(_LONGEST_MESSAGE))  # noqa: S301  (from our parent)
    prepare()
    gc.collect()
    gc.freeze()  # else the collector writes to every page, which then is copied in each worker
    control.send(json.dumps({"unfit": unfit()}).encode())


def _forked(control: socket.socket) -> int | None:
    """Forks workers; returns the descriptor of its pipe in each, and None here, once nobody asks any more."""
    _prepare(control)
    workers: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in workers:
                poll.unregister(descriptor)
                _bury(descriptor, *workers.pop(descriptor))
                continue
            mark, found, _, _ = socket.recv_fds(control, 1, 2)
            if not mark:
                return None
            pipe, birth = found[0], socket.socket(fileno=found[1])
            try:
                number = os.fork()
            except OSError as error:
                _tell(birth, -(error.errno or errno.EAGAIN))
                birth.close()
            else:
                if number == 0:
                    _close_all_but(pipe, [control, birth, *(other for _, other in workers.values())])
                    return pipe
                held = os.pidfd_open(number)
                _tell(birth, number, held)
                workers[held] = number, birth
                poll.register(held, select.POLLIN)
            os.close(pipe)


def _close_all_but(pipe: int, connections: Iterable[socket.socket]) -> None:
    """Leaves a worker its pipe and the standard descriptors."""
    for connection in connections:  # whose objects would close their numbers later, whatever has them then
        connection.close()
    for descriptor in [int(entry.name) for entry in (_PROCESS / "fd").iterdir()]:
        if descriptor > 2 and descriptor != pipe:
            with contextlib.suppress(OSError):  # that of the list itself
                os.close(descriptor)


def _bury(descriptor: int, number: int, birth: socket.socket) -> None:
    """Tells how a worker ended."""
    _, status = os.waitpid(number, 0)
    os.close(descriptor)
    _tell(birth, os.waitstatus_to_exitcode(status))
    birth.close()


def _tell(birth: socket.socket, number: int, *descriptors: int) -> None:
    with contextlib.suppress(OSError):  # nobody wants to know any more
        socket.send_fds(birth, [NUMBER.pack(number)], descriptors)
