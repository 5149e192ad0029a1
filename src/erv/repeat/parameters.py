"""The parameters of experiments: which of them decide a result, and where two experiments differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.parameters import ABSENT, PARAMETERS, decides, parse, read

__all__ = ["PARAMETERS", "VARIED", "deciding", "differing", "digest", "of_workspace"]

VARIED = ("seed", "ingest.fold")  # what repeats vary


def deciding(content: bytes) -> dict[str, Any]:
    """The parameters that repeats must have in common, by dotted name.

    Args:
        content: of a `params.yaml`.

    Raises:
        SettingsError: it is not a mapping of sections.
    """
    found = parse(content)
    return {name: value for name, value in found.items() if name not in VARIED and decides(name)}


def of_workspace(workspace: Path) -> dict[str, Any]:
    """The parameters of the workspace as they are now, see `deciding`.

    Raises:
        SettingsError: the workspace has none.
    """
    return deciding(read(workspace))


def digest(parameters: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that stand for these parameters in the name of an experiment."""
    content = json.dumps(parameters, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """Where two sets of parameters differ: `grpo.beta is 0.1 there and 0.04 now`; None if nowhere."""
    names = [
        name for name in dict.fromkeys([*here, *there]) if there.get(name, ABSENT) != here.get(name, ABSENT)
    ]
    if not names:
        return None
    first, *more = names
    said = f"{first} is {there.get(first, ABSENT)} there and {here.get(first, ABSENT)} now"
    return f"{said}, and {len(more)} more differ" if more else said
