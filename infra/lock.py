"""Writes the exact versions of the present environment to `requirements/`, as lock files that pip installs.

Command: `make lock`. Two files, each distribution in one of them:

- `results.lock`: what may change a result; stages in `dvc.yaml` depend on it. It holds the dependencies in
  `pyproject.toml` and all that they need, except those that `tool.erv.lock.no-results` lists.
- `tools.lock`: the rest, which are those exceptions and the tools of development.

The editable install of this repository and pip itself are left out. Local version labels (`+cpu`) are
dropped: an index that serves a build under its plain version refuses the labelled one.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from erv.register.requirements import closure

ROOT = Path(__file__).parents[1]
RESULTS = "requirements/results.lock"
TOOLS = "requirements/tools.lock"

LEFT_OUT = {"erv", "pip"}
# decord has wheels for x86-64 only; its fork offers the same module elsewhere (see pyproject.toml).
MARKERS = {"decord": '; platform_machine == "x86_64" or platform_machine == "AMD64"'}
_HEADER = "# Written by `make lock`; install with `make install` (torch first, CPU build).\n"


def direct(root: Path = ROOT) -> list[Requirement]:
    """The dependencies in `pyproject.toml` that may change a result.

    Raises:
        ValueError: `no-results` names something that is not a dependency.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = [Requirement(line) for line in project["project"]["dependencies"]]
    excepted = set(project["tool"]["erv"]["lock"]["no-results"])
    if unknown := excepted - {requirement.name for requirement in requirements}:
        raise ValueError(f"pyproject.toml, no-results: {', '.join(sorted(unknown))} is not a dependency")
    return [requirement for requirement in requirements if requirement.name not in excepted]


def main(root: Path = ROOT) -> None:
    """Writes a line `name==version` for each installed distribution to its file, sorted by name."""
    installed = {canonicalize_name(dist.metadata["Name"]): dist for dist in distributions()}
    computing = closure(direct(root), installed)
    lines: dict[str, list[str]] = {RESULTS: [], TOOLS: []}
    for key, dist in installed.items():
        name = dist.metadata["Name"].lower().replace("_", "-")
        if name not in LEFT_OUT:
            line = f"{name}=={dist.version.split('+')[0]}{MARKERS.get(name, '')}"
            lines[RESULTS if key in computing else TOOLS].append(line)
    (root / "requirements").mkdir(exist_ok=True)
    for file, found in lines.items():
        temporary = root / f"{file}.new"
        text = "\n".join(sorted(found, key=lambda line: line.split("==")[0]))
        temporary.write_text(f"{_HEADER}{text}\n", encoding="utf-8")
        temporary.replace(root / file)


if __name__ == "__main__":
    main()
