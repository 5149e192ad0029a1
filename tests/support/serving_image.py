"""The image that serves a version, as its Dockerfile describes it."""

from __future__ import annotations

import json
import re

from tests.support.paths import ROOT

DOCKERFILE = ROOT / "infra/serving/Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its text, in order; continued lines are joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, text) for name, text in found]


def serve_command() -> list[str]:
    """The command that the container runs."""
    (command,) = (text for name, text in instructions() if name == "CMD")
    return [str(word) for word in json.loads(command)]
