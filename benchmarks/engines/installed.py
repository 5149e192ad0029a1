"""What an engine brings: megabytes of packages that the pipeline doesn't have, and lines of our code."""

from __future__ import annotations

import ast
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from erv.syntax import drop_docstrings

ROOT = Path(__file__).resolve().parents[2]
_FILES = {
    "erv.extract.dask_cluster": ROOT / "src/erv/extract/dask_cluster.py",
    "benchmarks.engines.on_ray": ROOT / "benchmarks/engines/on_ray.py",
}


def installed(requirement: str) -> dict[str, Any]:
    """Packages of a requirement that the extra `pipeline` doesn't bring, and their megabytes on disk."""
    wanted = _closure(Requirement(requirement))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours: set[str] = set()
    listed = [*project["dependencies"], *project["optional-dependencies"]["pipeline"]]
    listed += project["optional-dependencies"]["train"]
    for line in listed:
        if not line.startswith("erv"):
            ours |= _closure(Requirement(line))
    more = sorted(wanted - ours)
    return {
        "packages": {name: round(_bytes(name) / 1e6, 1) for name in more},
        "megabytes": round(sum(map(_bytes, more)) / 1e6, 1),
    }


def code_lines() -> dict[str, int]:
    """Lines of each engine's module, formatted anew without comments, docstrings and blank lines."""
    lines = {}
    for name, path in _FILES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        drop_docstrings(tree)
        lines[name] = sum(bool(line.strip()) for line in ast.unparse(tree).splitlines())
    return lines


def _closure(requirement: Requirement) -> set[str]:
    found: set[str] = set()
    waiting = [requirement]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        known = name in found
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        if known and not wanted.extras:
            continue
        for line in needs:
            need = Requirement(line)
            marked = need.marker
            if marked is None or any(
                marked.evaluate({"extra": extra}) for extra in ("", *sorted(wanted.extras))
            ):
                need.marker = None
                waiting.append(need)
    return found


def _bytes(name: str) -> int:
    total = 0
    for file in distribution(name).files or []:
        path = Path(str(file.locate()))
        total += path.stat().st_size if path.is_file() else 0
    return total
