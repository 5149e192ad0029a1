"""The exceptions that reach a user, each with one clear sentence.

Every message names the file, clip or parameter, what was expected and what to do. The command line and the
stages print only the message and exit with `ErvError.exit_code`; a traceback means a bug in `erv`.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Libraries that write with native code report a full disk as text: safetensors, Arrow, SQLite, DVC.
_FULL_TEXT = re.compile(r"no space left on device|disk is full|disk quota exceeded|\[Errno 28\]", re.I)
# torch and numpy say no more than this; it counts if the disk had hardly any room.
_FAILED_TEXT = re.compile(r"PytorchStreamWriter failed|inline_container|requested and \d+ written")
_HARDLY_ANY_BYTES = 16_000_000
_NOTE = re.compile(r"while writing (?P<path>.+) \((?P<free>\d+) bytes free\)")


class ErvError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = 1


class SettingsError(ErvError):
    """`params.yaml` or the environment is wrong; the message lists every fault found."""

    exit_code = 2


class DataError(ErvError):
    """A source, manifest, clip or shard violates its contract."""


class StorageError(ErvError):
    """An object store can't be reached, refuses the key or lacks an object."""


class StackError(ErvError):
    """The local stack, or a server that stands in for it, is not usable."""


class TrainingError(ErvError):
    """Training can't continue: a non-finite loss, an unusable checkpoint, no trainable clip."""


class EvaluationError(ErvError):
    """Predictions or judgements are missing or don't belong together."""


class RegistryError(ErvError):
    """A bundle, model version or alias is missing or inconsistent."""


def note_write(error: BaseException, path: Path) -> None:
    """Notes on an error what was being written, and how much room there was before it is removed again.

    The system's error for a failed write names no file.
    """
    if isinstance(error, ErvError):
        return  # says what happened in its own words
    if not any(_NOTE.match(note) for note in getattr(error, "__notes__", ())):
        error.add_note(f"while writing {path} ({_free(path)} bytes free)")


def full_disk(error: BaseException) -> str | None:
    """A sentence about the full disk that an error, or an error behind it, reports; None for other errors.

    It names the file, if known, the file system and what to free.
    """
    for one in _chain(error):
        text = str(one)
        note = next(filter(None, map(_NOTE.match, getattr(one, "__notes__", ()))), None)
        written = getattr(one, "filename", None) or (note and note["path"])
        if getattr(one, "errno", None) in _FULL or _FULL_TEXT.search(text):
            return _sentence(written)
        if note and int(note["free"]) < _HARDLY_ANY_BYTES and _FAILED_TEXT.search(text):
            return _sentence(written)
    return None


def full_disk_text(text: str) -> str | None:
    """As `full_disk`, for the output of another process."""
    return _sentence(None) if _FULL_TEXT.search(text) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _sentence(file: object) -> str:
    if isinstance(file, str | Path):
        path, what = Path(file), f"{file}: "
    else:  # the fullest of the places where we write
        path = min((Path.cwd(), Path(tempfile.gettempdir())), key=_free)
        what = ""
    where, free = _mount(path), _free(path) / 1e6
    return (
        f"{what}the disk is full or its quota is used up (file system {where}, {free:,.0f} MB free); free"
        " space there, e.g. with `dvc gc --workspace` or by removing .erv/sources, and run the same command"
        " again"
    )


def _mount(path: Path) -> Path:
    path = path.absolute()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _free(path: Path) -> int:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
