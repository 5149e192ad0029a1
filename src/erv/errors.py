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
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Libraries that write with native code report a full disk as text: safetensors, Arrow, SQLite, DVC.
_FULL_TEXT = re.compile(r"no space left on device|disk is full|disk quota exceeded|\[Errno 28\]", re.I)
# torch and numpy say no more than this; it counts if the disk had hardly any room.
_FAILED_TEXT = re.compile(r"PytorchStreamWriter failed|inline_container|requested and \d+ written")
_HARDLY_ANY_BYTES = 16_000_000
_NOTE = re.compile(r"while writing (?P<path>.+) \((?P<free>\d+) bytes free\)")


class ExitCode(IntEnum):
    """How a command ends; `EXIT_CODES` says what each one means."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    UNMET = 3
    LINEAGE = 4
    UNCHECKED = 5
    CANCELLED = 130


class Ending(NamedTuple):
    """A line of the table of exit codes.

    Attributes:
        code: the exit code.
        command: the command, with the option that it goes with; empty for every command.
        means: what it says.
    """

    code: ExitCode
    command: str
    means: str


# The only such table: `erv lineage --help` prints lines of it, and docs/daily.md shows it all.
EXIT_CODES = (
    Ending(ExitCode.DONE, "", "done, and what is required holds"),
    Ending(ExitCode.DONE, "erv lineage --withdrawn", "no version is recorded to have used any of the clips"),
    Ending(ExitCode.ERROR, "", "an error, told in a sentence"),
    Ending(ExitCode.ERROR, "erv run", "a stage failed"),
    Ending(
        ExitCode.ERROR,
        "erv sweep run",
        "too many trials failed, none was finished, or the best can't be proposed",
    ),
    Ending(ExitCode.ERROR, "erv explain", "a clip can't be answered; the others are"),
    Ending(ExitCode.ERROR, "erv doctor", "something required is missing or wrong, settings too"),
    Ending(
        ExitCode.ERROR,
        "erv stack status",
        "not every server is running; in a connected clone, one that it uses doesn't answer",
    ),
    Ending(ExitCode.ERROR, "erv params --profile", "the parameters differ in more than the machine"),
    Ending(ExitCode.USAGE, "", "wrong options, or wrong settings"),
    Ending(
        ExitCode.UNMET, "erv run --require-gates", "not every gate is passed, or no version was registered"
    ),
    Ending(ExitCode.UNMET, "erv publish --require-gates", "not every gate is passed"),
    Ending(ExitCode.UNMET, "erv lineage --withdrawn", "versions used some of the clips"),
    Ending(
        ExitCode.LINEAGE,
        "erv run --require-lineage",
        "a link doesn't hold now or can't be checked, or no version was registered; comes before 3",
    ),
    Ending(
        ExitCode.LINEAGE,
        "erv publish --require-lineage",
        "a link doesn't hold now or can't be checked; comes before 3",
    ),
    Ending(ExitCode.LINEAGE, "erv lineage TARGET", "a link is broken"),
    Ending(
        ExitCode.LINEAGE,
        "erv lineage --withdrawn",
        "an id is unknown, or records of a version can't be read: the answer isn't complete; comes before 3",
    ),
    Ending(
        ExitCode.UNCHECKED,
        "erv lineage TARGET --verify",
        "nothing is broken, but something can't be checked from here",
    ),
    Ending(ExitCode.CANCELLED, "erv run", "cancelled"),
    Ending(ExitCode.CANCELLED, "erv sweep run", "cancelled; it goes on by its name"),
)


def exit_codes_of(command: str) -> list[Ending]:
    """The lines that count for a command, such as `erv lineage`."""
    return [line for line in EXIT_CODES if not line.command or f"{line.command} ".startswith(f"{command} ")]


class ErvError(Exception):
    """Base of all errors that a user can act on."""

    exit_code = ExitCode.ERROR


class SettingsError(ErvError):
    """`params.yaml` or the environment is wrong; the message lists every fault found."""

    exit_code = ExitCode.USAGE


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
