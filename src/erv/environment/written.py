"""What is written down in `.erv` about servers, and which of three states that puts a clone in.

- own stack: `erv stack up` has written `stack.env`;
- connected to servers of others: `erv connect` has written `connected.env`. `stack.env` may be there, from
  a stack that the clone had before; it is kept and not used;
- neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from erv.errors import SettingsError

STATE = ".erv"
STACK_FILE = "stack.env"
CONNECTED_FILE = "connected.env"
LEFT_FILE = "was_connected.env"
STACK_REMEDY = "delete the file and run `erv stack up`"

CloneState = Literal["own stack", "connected", "neither"]

# Where DVC says which repository a queued experiment belongs to.
_ORIGINAL = "DVC_ROOT"


def clone_state(workspace: str | Path = ".") -> CloneState:
    """Whose servers a clone uses, whatever the variables of one shell name."""
    root = Path(workspace).resolve()
    if is_connected(root):
        return "connected"
    return "own stack" if written_file(root, STACK_FILE, os.environ).is_file() else "neither"


def is_connected(workspace: Path, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether `erv connect` has connected a clone to servers of others."""
    return written_file(workspace, CONNECTED_FILE, variables).is_file()


def read_stack_file(path: Path, remedy: str = STACK_REMEDY) -> dict[str, str]:
    """The `KEY=VALUE` lines of a `stack.env`; empty if there is no such file.

    Args:
        path: the file.
        remedy: what to do about a damaged one.

    Raises:
        SettingsError: the file can't be read, is not UTF-8, or a line is neither a comment nor `KEY=VALUE`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start}); {remedy}") from None
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); {remedy}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier():
            raise SettingsError(f"{path}, line {number}: expected KEY=VALUE; {remedy}")
        if not value.isprintable():
            raise SettingsError(f"{path}, line {number}: {name} has an unprintable character; {remedy}")
        values[name] = value
    return values


def written_file(workspace: Path, name: str, variables: Mapping[str, str]) -> Path:
    """A file of `.erv`; in a copy in which DVC runs an experiment, that of the original."""
    file = workspace / STATE / name
    original = variables.get(_ORIGINAL)
    return Path(original) / STATE / name if original and not file.exists() else file
