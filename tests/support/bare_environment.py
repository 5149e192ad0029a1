"""A virtual environment that has only some of this one's distributions, as links."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path


def write_bare_environment(folder: Path, names: Iterable[str]) -> Path:
    """Makes the environment without pip; returns its Python.

    Args:
        folder: where; it must not exist.
        names: distributions of this environment.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
    here = Path(sysconfig.get_path("purelib"))
    tops = {
        file.parts[0]
        for name in names
        for file in distribution(name).files or []
        if file.parts[0] not in ("..", "__pycache__")
    }
    for top in sorted(tops):
        (site / top).symlink_to(here / top)
    return python
