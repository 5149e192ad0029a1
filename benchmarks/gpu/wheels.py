"""Wheels from a folder, for the parts alone: the machine's own environment stays as it is.

pip unpacks them, without looking anywhere else, into a folder that goes first on the parts' `PYTHONPATH`. So
a wheel adds a package that the machine lacks, or takes the place of another version of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


class WheelError(Exception):
    """The wheels can't be used; the message names the folder and pip's reason."""


def unpack(wheels: Path, target: Path) -> None:
    """Unpacks all wheels of a folder into `target`.

    Raises:
        WheelError: the folder has none, or pip refuses one: one for another Python or processor, say.
    """
    found = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if not found:
        raise WheelError(f"{wheels}: no wheels (*.whl) there; name the folder that holds them")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--target", str(target), *map(str, found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise WheelError(
            f"{wheels}: pip can't unpack the wheels: {said[-1] if said else 'it says no reason'}"
        )
