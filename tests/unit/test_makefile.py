"""The Makefile picks Python and lock files from params.yaml."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from erv.settings import load_settings

ROOT = Path(__file__).parents[2]


def test_the_recorded_python_is_that_of_params() -> None:
    """Quotes or not: an empty value would take whatever `python3` is."""
    printed = subprocess.run(
        ["make", "--print-data-base", "--dry-run", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert (
        re.search(r"^RECORDED := (.*)$", printed, re.MULTILINE)[1]
        == load_settings(ROOT / "params.yaml").runtime.python
    )  # type: ignore[index]
