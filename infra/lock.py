"""Writes the exact versions of the present environment to `requirements/`, as lock files that pip installs.

Command: `make lock`. Two files per Python, since each needs other packages, and each distribution in one:

- `results-PYTHON.lock`: what may change a result; stages in `dvc.yaml` depend on it. It holds what their code
  imports and all that this needs, except what `tool.erv.lock.no-results` lists and what only that needs.
- `tools-PYTHON.lock`: the rest: servers, what only moves, keeps or shows data, the tools of development.

The editable install of this repository and pip itself are left out. Local version labels (`+cpu`) are
dropped: an index that serves a build under its plain version refuses the labelled one. So are the packages
that a build of torch for a GPU brings, which the build for a CPU doesn't need.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions, packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from erv.libraries import FOLDER, lock_of, running_python
from erv.policies.common.families import FAMILIES
from erv.register.imports import imported, modules_of
from erv.register.requirements import closure

ROOT = Path(__file__).parents[1]
RESULTS = str(lock_of(running_python()))
TOOLS = str(FOLDER / f"tools-{running_python()}.lock")

LEFT_OUT = {"erv", "pip"}
# decord has wheels for x86-64 only; its fork offers the same module elsewhere (see pyproject.toml).
MARKERS = {"decord": '; platform_machine == "x86_64" or platform_machine == "AMD64"'}
# By release of Python: what is needed by patch releases before the one that runs this. Prefect imports the
# client of Redis, and Debian 12 has Python 3.11.2.
EARLIER_PATCHES = {"3.11": ['async-timeout==5.0.1; python_full_version < "3.11.3"']}
_OF_A_GPU_BUILD = re.compile(
    r"(nvidia|cuda)-.+|triton"
)  # what torch needs on a GPU, in the versions of its build
_HEADER = "# Written by `make lock`; install with `make install` (torch first, CPU build).\n"


def computing(installed: Mapping[NormalizedName, Distribution], root: Path = ROOT) -> set[NormalizedName]:
    """The canonical names of the installed distributions that may change a result.

    Raises:
        ValueError: `no-results` names something that would not be among them anyway.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    excepted = {canonicalize_name(name) for name in project["tool"]["erv"]["lock"]["no-results"]}
    owners = packages_distributions()
    # What isn't installed serves options that are not used here, such as bases in four bits.
    start = [Requirement(name) for module in imported_by_stages() for name in owners.get(module, ())]
    if idle := excepted - closure(start, installed):
        raise ValueError(
            f"pyproject.toml, no-results: no code of a stage needs {', '.join(sorted(idle))}; take it out"
        )
    return closure(start, installed, excepted | of_a_gpu_build(installed))


def of_a_gpu_build(installed: Iterable[NormalizedName]) -> set[NormalizedName]:
    """Those of the installed distributions that came with a build of torch for a GPU."""
    return {name for name in installed if _OF_A_GPU_BUILD.fullmatch(name)}


def imported_by_stages() -> set[str]:
    """The top-level modules from elsewhere that stages import, also through the code in their `deps`."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found: set[str] = set()
    for stage, entry in stages.items():
        # The families of policies are imported by name; each counts, whichever is in use.
        within = [ROOT / dep.partition("/${")[0] for dep in entry["deps"] if dep.startswith("src/")]
        families = [f"erv.policies.{name}" for name in FAMILIES if ROOT / "src/erv/policies" in within]
        found |= imported([*modules_of(ROOT / f"stages/{stage}.py"), *families], within).outside
    return found


def main(root: Path = ROOT) -> None:
    """Writes a line `name==version` for each installed distribution to its file, sorted by name."""
    installed = {canonicalize_name(dist.metadata["Name"]): dist for dist in distributions()}
    results, of_a_build = computing(installed, root), of_a_gpu_build(installed)
    lines: dict[str, list[str]] = {RESULTS: [], TOOLS: list(EARLIER_PATCHES.get(running_python(), []))}
    for key, dist in installed.items():
        name = dist.metadata["Name"].lower().replace("_", "-")
        if name not in LEFT_OUT and key not in of_a_build:
            line = f"{name}=={dist.version.split('+')[0]}{MARKERS.get(name, '')}"
            lines[RESULTS if key in results else TOOLS].append(line)
    (root / "requirements").mkdir(exist_ok=True)
    for file, found in lines.items():
        temporary = root / f"{file}.new"
        text = "\n".join(sorted(found, key=lambda line: line.split("==")[0]))
        temporary.write_text(f"{_HEADER}{text}\n", encoding="utf-8")
        temporary.replace(root / file)


if __name__ == "__main__":
    main()
