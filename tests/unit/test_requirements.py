"""The lock files in `requirements/`: what may change results, and the rest."""

from __future__ import annotations

import re
import shutil
import tomllib
from importlib.metadata import distribution, distributions, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from erv.libraries import PYTHONS, lock_of
from erv.register.requirements import needed
from infra import lock
from tests.support.paths import ROOT


def pins(file: Path) -> dict[str, Requirement]:
    """The requirements of a lock file by canonical name."""
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    result = {canonicalize_name(requirement.name): requirement for requirement in found}
    assert len(result) == len(found), f"{file} names a distribution twice"
    return result


RESULTS, TOOLS = pins(ROOT / lock.RESULTS), pins(ROOT / lock.TOOLS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXCEPTED = {canonicalize_name(name) for name in PROJECT["tool"]["erv"]["lock"]["no-results"]}


def test_each_distribution_stands_in_one_file_with_an_exact_version() -> None:
    assert not RESULTS.keys() & TOOLS.keys()
    assert all(re.fullmatch(r"==[^,*]+", str(pin.specifier)) for pin in [*RESULTS.values(), *TOOLS.values()])


def test_results_are_what_stages_import_and_all_that_it_needs_but_for_the_exceptions() -> None:
    for name, pin in RESULTS.items():
        if not needed(pin):
            continue
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            other = EXCEPTED | lock.of_a_gpu_build([canonicalize_name(requirement.name)])
            if needed(requirement) and canonicalize_name(requirement.name) not in other:
                assert canonicalize_name(requirement.name) in RESULTS, f"{name} needs {requirement}"
    imported = lock.imported_by_stages()
    assert {"torch", "transformers", "av", "great_expectations", "sklearn"} <= imported
    assert not imported & {"mlflow", "boto3", "dvc", "prefect"}, "rooms around stages don't count"
    owners = packages_distributions()
    wanted = {canonicalize_name(name) for module in imported for name in owners.get(module, ())}
    assert wanted - EXCEPTED <= RESULTS.keys()


@pytest.mark.parametrize(
    "name", ["certifi", "rich", "pygments", "urllib3", "idna", "tqdm", "typer", "click", "filelock", "fsspec"]
)
def test_what_can_not_change_a_result_runs_no_stage_again(name: str) -> None:
    """A new certificate bundle trained every policy again."""
    assert name in TOOLS
    assert name not in RESULTS


def test_every_exception_is_one() -> None:
    """Each would be among the results, with all that only it needs."""
    assert not EXCEPTED & RESULTS.keys()
    assert len(EXCEPTED) <= 15, "the rule is the imports of stages"


def test_every_dependency_is_locked_in_its_file() -> None:
    assert {"torch", "transformers", "tokenizers", "numpy", "decord", "pillow"} <= RESULTS.keys()
    assert {"prefect", "dvc", "mlflow", "fastapi", "boto3", "ruff", "mypy", "pytest"} <= TOOLS.keys()


def test_locked_versions_are_those_that_pyproject_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["train"], *extras["pipeline"]]
    wanted = [item for line in lines if (item := Requirement(line)).name != "erv"]
    locked = {name: next(iter(pin.specifier)).version for name, pin in {**RESULTS, **TOOLS}.items()}
    refused = [
        f"{item} is locked as {locked.get(canonicalize_name(item.name))}"
        for item in wanted
        if needed(item) and not item.specifier.contains(locked.get(canonicalize_name(item.name), ""))
    ]
    assert refused == []


def test_every_dependency_of_what_is_locked_allows_the_locked_version() -> None:
    locked = {name: next(iter(pin.specifier)).version for name, pin in {**RESULTS, **TOOLS}.items()}
    wanted = [
        Requirement(line)
        for name in ("prefect", "mlflow", "alembic")
        for line in distribution(name).requires or []
    ]
    checked = [item for item in wanted if canonicalize_name(item.name) == "sqlalchemy" and needed(item)]
    assert len(checked) == 3
    assert all(item.specifier.contains(locked["sqlalchemy"]) for item in checked)


def test_nothing_stands_among_results_without_being_needed() -> None:
    installed = {canonicalize_name(dist.metadata["Name"]): dist for dist in distributions()}
    assert {name for name, pin in RESULTS.items() if needed(pin)} == lock.computing(installed)


def test_stages_depend_on_results_alone() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    deps = {str(dep) for stage in stages.values() for dep in stage.get("deps", [])}
    assert {dep for dep in deps if dep.endswith(".lock")} == {"requirements/results-${runtime.python}.lock"}


def test_each_python_has_its_locks_with_the_same_versions() -> None:
    """What is needed differs, versions don't: a result changes with Python alone, not with torch too."""
    ours = {name: str(pin.specifier) for name, pin in {**RESULTS, **TOOLS}.items()}
    for python in PYTHONS:
        results = pins(ROOT / lock_of(python))
        tools = pins(ROOT / f"requirements/tools-{python}.lock")
        assert {"torch", "transformers", "numpy"} <= results.keys()
        assert {"prefect", "dvc", "mlflow"} <= tools.keys()
        assert not results.keys() & tools.keys()
        theirs = {name: str(pin.specifier) for name, pin in {**results, **tools}.items()}
        common = theirs.keys() & ours.keys()
        assert len(common) > 250
        assert {name: theirs[name] for name in common} == {name: ours[name] for name in common}


def test_what_a_build_of_torch_for_a_gpu_brings_is_in_no_lock() -> None:
    """The build of the same version for a CPU doesn't need it."""
    names = ["nvidia-cudnn-cu13", "cuda-bindings", "triton", "torch", "numpy"]
    assert lock.of_a_gpu_build(names) == {"nvidia-cudnn-cu13", "cuda-bindings", "triton"}
    assert not lock.of_a_gpu_build([*RESULTS, *TOOLS])


def test_an_exception_that_makes_no_difference_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(text.replace('"fsspec", ', '"prefect", '))
    with pytest.raises(ValueError, match="no-results: no code of a stage needs prefect; take it out"):
        lock.computing({canonicalize_name(item.metadata["Name"]): item for item in distributions()}, tmp_path)


def test_make_lock_puts_each_distribution_where_it_stands(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lock.main(tmp_path)
    for file, elsewhere in ((lock.RESULTS, TOOLS), (lock.TOOLS, RESULTS)):
        written = pins(tmp_path / file)
        assert len(written) > 50
        assert not written.keys() & elsewhere.keys()
