"""Pins files of a study with DVC.

Each has a `.dvc` file, and none is the output of a stage. A stage would make the study anew when a policy is
evaluated again, and the answers that people gave to the earlier one would be about nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from erv.errors import DataError


def pin(paths: Sequence[Path]) -> None:
    """Has DVC track files and folders: `dvc add`.

    Args:
        paths: below the working folder, which is the top of the repository.

    Raises:
        DataError: the workspace is no DVC repository, or DVC refuses.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    from erv.pipeline import quiet_dvc

    root = Path.cwd()
    names = [str(root / path) for path in paths]
    shown = ", ".join(map(str, paths))
    try:
        with quiet_dvc(), Repo(str(root), _wait_for_lock=True) as repo:
            repo.add(names)
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{shown}: DVC can't track it ({reason}); mend that and run the command again"
        ) from None


def check_pin(path: Path, content: bytes) -> None:
    """Makes sure that a file is what DVC tracks of it, if it tracks it.

    Raises:
        DataError: it was changed, or its `.dvc` file can't be read.
    """
    import yaml

    pointer = path.with_name(f"{path.name}.dvc")
    try:
        known = yaml.safe_load(pointer.read_bytes()) or {}
    except FileNotFoundError:
        return
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{pointer}: can't be read ({error}); restore it from git") from None
    outs = known.get("outs") if isinstance(known, dict) else None
    pinned = {str(out.get("md5")) for out in outs or () if isinstance(out, dict) and out.get("md5")}
    if not pinned:
        raise DataError(f"{pointer}: names no hash; restore it from git, or run `dvc add {path}`")
    if hashlib.md5(content, usedforsecurity=False).hexdigest() not in pinned:
        raise DataError(
            f"{path}: was changed since DVC has it ({pointer.name}); `dvc checkout {pointer}` restores it"
        )
