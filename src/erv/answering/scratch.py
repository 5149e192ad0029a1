"""A folder for temporary files that is gone with the process that made it, also after `kill -9`.

Whoever makes one first removes those of processes that are gone: each holds a lock on its folder, which the
kernel frees when it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "erv-answering-"


class Scratch:
    """A new folder that only this user can read; `close` removes it.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        sweep(Path(tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Removes the folder and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(folder: Path) -> None:
    """Removes the folders of this user's processes that are gone."""
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, in use, or just removed
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
