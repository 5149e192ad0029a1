"""What the stages of a Dockerfile do, those that they are made from included."""

from __future__ import annotations

import re
from pathlib import Path


def stages(file: Path) -> dict[str, str]:
    """The instructions of each named stage, after those of the stages below it; a continued line is one."""
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, str] = {}
    for below, name, lines in re.findall(r"^FROM (\S+) AS (\w+)\n(.*?)(?=^FROM |\Z)", text, re.M | re.S):
        found[name] = found.get(below, "") + lines
    return found
