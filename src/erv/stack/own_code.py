"""Keeps the code of another clone from running in this one.

An environment is installed from one clone (`pip install --editable`). Used in another folder, it would run
the code of its own clone on the data there, while DVC records the code of the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import erv
from erv.errors import StackError

_OURS = Path("src") / "erv"


def require_own_code(workspace: Path, **packages: Path) -> None:
    """Makes sure that what is imported is the code of a clone.

    Args:
        workspace: the clone.
        **packages: folders of other packages that are imported from the top of a clone, by name.

    Raises:
        StackError: it is that of another folder, or an installed copy.
    """
    expected = {_OURS: Path(erv.__file__).parent, **{Path(name): found for name, found in packages.items()}}
    for place, found in expected.items():
        if found.resolve() != (workspace / place).resolve():
            raise StackError(
                f"{workspace}: `{place.name}` is imported from {found}, not from {workspace / place}, so this"
                f" would mix two code bases; use the environment of this clone: `. .venv/bin/activate`, after"
                f" `make install` (Python here is {sys.executable})"
            )
