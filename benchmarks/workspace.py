"""What benchmarks need of a workspace where `make demo` has run, or one sentence about what is missing."""

from __future__ import annotations

import sys
from pathlib import Path


def demanded(root: Path, *names: str) -> None:
    """Ends the script if one of these files or folders is missing from the workspace `root`.

    Raises:
        SystemExit: with a sentence that names the first missing one, and with status 1.
    """
    for name in names:
        if not (root / name).exists():
            sys.exit(f"error: {root / name} not found; run `make demo` in that workspace first")


def stack_demanded(root: Path) -> None:
    """Ends the script unless all servers of the workspace `root` are up.

    Raises:
        SystemExit: with a sentence that names the first that isn't, and with status 1.
    """
    from erv.stack import status

    for service in status(root):
        if service.state != "running":
            sys.exit(f"error: {service.name} is {service.state}; run `erv stack up` in that workspace first")
