"""How a confined worker gets its clips: the parent opens them, the worker decodes private copies in memory.

A confined process (`erv.media.confinement`) can't open a file by its path. The parent sends open descriptors
over the pipe instead. The worker copies each file into an anonymous file in memory, whose path in `/proc` it
may open: decoders need one, and they can seek in it. A copy also can't change between a check and the
decoding.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

# Open files have paths here. Their names are numbers, which no message should contain.
DESCRIPTORS = Path("/proc/self/fd")
_AT_ONCE = 200  # descriptors in one message; Linux takes 253
_BLOCK = 1 << 20


class HasFiles(Protocol):
    """An item for a confined worker: a frozen dataclass whose field `files` says what to open.

    The worker's function gets the item with the paths of the copies in `files`.
    """

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of a clip."""


def can_hand_over() -> bool:
    """Whether files can be handed over as described; elsewhere (macOS, Windows), workers open them."""
    return sys.platform.startswith("linux") and DESCRIPTORS.is_dir()


def send_files(pipe: int, files: Sequence[Path]) -> None:
    """Opens files and sends their descriptors; raises OSError if one can't be opened or the reader is gone.

    Args:
        pipe: descriptor of a socket.
        files: paths.
    """
    with socket.socket(fileno=os.dup(pipe)) as connection:
        for start in range(0, len(files), _AT_ONCE):
            with ExitStack() as stack:
                opened = [stack.enter_context(path.open("rb")) for path in files[start : start + _AT_ONCE]]
                socket.send_fds(connection, [b"f"], [file.fileno() for file in opened])


@contextmanager
def received_files(pipe: int, count: int, most_bytes: int | None) -> Iterator[tuple[Path, ...]]:
    """Receives files that `send_files` sent; yields the paths of their copies, which end with the context.

    Raises:
        EOFError: the sender is gone.
        MemoryError: the files are larger than `most_bytes` together.
    """
    with ExitStack() as stack:
        originals = [stack.enter_context(os.fdopen(number, "rb")) for number in _receive(pipe, count)]
        size = sum(os.fstat(file.fileno()).st_size for file in originals)
        if most_bytes is not None and size > most_bytes:
            raise MemoryError
        copies = []
        for original in originals:
            copy = stack.enter_context(os.fdopen(os.memfd_create("clip", os.MFD_CLOEXEC), "wb"))
            shutil.copyfileobj(original, copy, _BLOCK)
            copy.flush()
            copies.append(DESCRIPTORS / str(copy.fileno()))
        yield tuple(copies)


def _receive(pipe: int, count: int) -> list[int]:
    numbers: list[int] = []
    with socket.socket(fileno=os.dup(pipe)) as connection:
        while len(numbers) < count:
            mark, found, _, _ = socket.recv_fds(connection, 1, min(_AT_ONCE, count - len(numbers)))
            if not mark:
                raise EOFError
            numbers.extend(found)
    return numbers
