"""Which files a served model reads: those below one folder, which the operator names.

A client names a clip by its path below that folder. Its answer never says where the folder is, nor whether
there is such a file outside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from erv.errors import DataError, RegistryError

ROOT_VARIABLE = "ERV_SERVE_ROOT"
MAX_CLIPS = 64  # in a request; they are in memory together
_LONGEST_NAME = 1024


class ClipError(DataError):
    """A clip can't be answered. The message is for the client, and holds no path of this machine."""


def served_folder(variables: Mapping[str, str] = os.environ) -> Path | None:
    """The folder in `ERV_SERVE_ROOT`, resolved; None if it is not set.

    Raises:
        RegistryError: it is not a folder.
    """
    value = variables.get(ROOT_VARIABLE)
    if not value:
        return None
    folder = Path(value)
    if not folder.is_dir():
        raise RegistryError(f"{ROOT_VARIABLE} is {value!r}, not a folder; name the folder of the clips")
    return folder.resolve()


def find_clips(names: Sequence[Any], root: Path | None) -> list[Path]:
    """The files of the clips that a request names.

    Args:
        names: paths below the root, with forward slashes.
        root: from `served_folder`.

    Raises:
        ClipError: there is no root, there are too many names, or a name is not that of a file below the root.
            Symbolic links count as what they lead to.
    """
    if root is None:
        raise ClipError(f"this server reads no clips: {ROOT_VARIABLE}, the folder of the clips, is not set")
    if len(names) > MAX_CLIPS:
        raise ClipError(f"the request names {len(names)} clips, at most {MAX_CLIPS} are answered at once")
    return [_find(name, root) for name in names]


def _find(name: Any, root: Path) -> Path:
    if not isinstance(name, str) or not name:
        raise ClipError("a clip has no name; the column clip holds paths below the served folder")
    shown = repr(name if len(name) <= 80 else f"{name[:80]}...")
    if PurePosixPath(name).is_absolute():
        raise ClipError(f"clip {shown}: name it by its path below the served folder, not by an absolute one")
    # One sentence for all of these: it must not tell what there is outside.
    absent = ClipError(f"clip {shown}: no such file below the served folder")
    # `..` is refused before anything is looked up: whether `a/../b` exists depends on what `a` is.
    if len(name) > _LONGEST_NAME or "\0" in name or ".." in PurePosixPath(name).parts:
        raise absent
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing, a loop of links, not encodable
        raise absent from None
    if not path.is_relative_to(root) or not path.is_file():
        raise absent
    return path
