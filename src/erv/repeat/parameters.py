"""The parameters of experiments: which of them decide a result, and where two experiments differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from erv.errors import SettingsError
from erv.files import parse_yaml

PARAMETERS = "params.yaml"
VARIED = ("seed", "ingest.fold")  # what repeats vary
WITHOUT_EFFECT = "machine."  # no stage depends on this section
ABSENT = "absent"


def deciding(content: bytes) -> dict[str, Any]:
    """The parameters that repeats must have in common, by dotted name.

    Args:
        content: of a `params.yaml`.

    Raises:
        SettingsError: it is not a mapping of sections.
    """
    try:
        raw = parse_yaml(content)
    except ValueError as error:
        raise SettingsError(f"{PARAMETERS}: {error}; correct it, or restore it from git") from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{PARAMETERS}: expected a mapping of sections, found {type(raw).__name__}")
    return {
        name: value
        for name, value in _flat(raw)
        if name not in VARIED and not name.startswith(WITHOUT_EFFECT)
    }


def of_workspace(workspace: Path) -> dict[str, Any]:
    """The parameters of the workspace as they are now, see `deciding`.

    Raises:
        SettingsError: the workspace has none.
    """
    try:
        return deciding((workspace / PARAMETERS).read_bytes())
    except OSError as error:
        raise SettingsError(
            f"{PARAMETERS}: can't be read ({error.strerror}); run this from the top of the repository"
        ) from None


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


def _flat(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value
