"""The image that serves a version, as its Dockerfile describes it."""

from __future__ import annotations

import json
import re
import shlex

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


def documented_run() -> list[str]:
    """The words of `docker run ...` in the comment at the top."""
    comment = "\n".join(
        line[1:].strip() for line in DOCKERFILE.read_text().splitlines() if line.startswith("#")
    )
    (command,) = re.findall(r"^docker run (?:.*\\\n)*.*", comment, re.M)
    return shlex.split(command.replace("\\\n", " "))
