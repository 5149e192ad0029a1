"""What benchmarks ask of their options and of a workspace where `make demo` has run, in one sentence each."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from erv.settings import Settings


def positive(text: str) -> int:
    """A whole number above 0, as a type of argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def demanded(root: Path, *names: str) -> None:
    """Ends the script if one of these files or folders is missing from the workspace `root`.

    Raises:
        SystemExit: with a sentence that names the first missing one, and with status 1.
    """
    for name in names:
        if not (root / name).exists():
            sys.exit(f"error: {root / name} not found; run `make demo` in that workspace first")


def settings_demanded(root: Path) -> Settings:
    """The settings of the workspace `root`; ends the script if they are not this code's.

    Raises:
        SystemExit: with what is wrong in its `params.yaml`, and with status 1.
    """
    from erv.errors import SettingsError
    from erv.settings import load_settings

    try:
        return load_settings(root / "params.yaml")
    except SettingsError as error:
        sys.exit(f"error: {error}")


def stack_demanded(root: Path) -> None:
    """Ends the script unless all servers of the workspace `root` are up.

    Raises:
        SystemExit: with a sentence that names the first that isn't, and with status 1.
    """
    from erv.stack import status

    for service in status(root):
        if service.state != "running":
            sys.exit(f"error: {service.name} is {service.state}; run `erv stack up` in that workspace first")
