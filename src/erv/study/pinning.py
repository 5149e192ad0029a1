"""Pins files of a study with DVC.

Each has a `.dvc` file, and none is the output of a stage. A stage would make the study anew when a policy is
evaluated again, and the answers that people gave to the earlier one would be about nothing.
"""

from __future__ import annotations

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
