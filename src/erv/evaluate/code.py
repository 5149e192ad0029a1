"""Which code reads answers and counts them, as digests: figures by another code are not measured alike.

A judge's own digest says what it is made of, and is the key of what it replied; its code is not in it.
Comments, docstrings and formatting don't count. Label spaces count by what they say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erv.evaluate.judges.protocol import SPACE
from erv.files import sha256_of_text
from erv.labels import LabelSpace
from erv.syntax import what_runs

_PACKAGE = Path(__file__).parents[1]
# What fills the columns of the predictions. A test compares it with what these modules import.
READS = (
    "chat/local.py",
    "chat/protocol.py",
    "evaluate/evaluate.py",
    "evaluate/judges",
    "evaluate/metrics.py",
    "labels",
    "prompts.py",
    "sentences.py",
)
# And what counts in them.
COUNTS = (
    "evaluate/draws.py",
    "evaluate/figures.py",
    "evaluate/outcomes.py",
    "evaluate/sets.py",
)


def code_digests(datasets: Iterable[str], package: Path = _PACKAGE) -> dict[str, str]:
    """SHA-256 of the code by which a policy is measured; the same on every machine.

    Args:
        datasets: names of those that it is tested on.
        package: folder of the code, that of this process by default.

    Returns:
        `reading`, which decides what was read in the kept answers; and `figures`, which also decides what
        is counted there.

    Raises:
        DataError: a data set has no label space.
    """
    spaces = {name: _content(LabelSpace.load(name)) for name in {SPACE, *datasets}}
    return {
        "reading": _digest(package, READS, spaces),
        "figures": _digest(package, (*READS, *COUNTS), spaces),
    }


def _digest(package: Path, places: Iterable[str], spaces: dict[str, Any]) -> str:
    modules = {
        path.relative_to(package).as_posix(): what_runs(path.read_bytes())
        for place in places
        for path in _modules(package / place)
    }
    return sha256_of_text(json.dumps([modules, spaces], sort_keys=True))


def _modules(place: Path) -> Iterator[Path]:
    return iter([place]) if place.is_file() else place.rglob("*.py")


def _content(space: LabelSpace) -> dict[str, Any]:
    """Names, ids, synonyms and maps, wherever they stand."""
    return {name: value for name, value in asdict(space).items() if name not in ("version", "_shown")}
