"""A copy of the repository runs its own code, whichever is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erv.environment import load_environment
from tests.conftest import ROOT

ASK = """
import subprocess, sys
import stages, erv
print(erv.__file__)
print(subprocess.check_output([sys.executable, "-c", "import erv; print(erv.__file__)"], text=True))
"""


@pytest.mark.parametrize("installed", [ROOT / "src", None])
def test_stages_and_what_they_start_import_what_is_beside_them(
    tmp_path: Path, installed: Path | None
) -> None:
    (tmp_path / "stages").mkdir()
    shutil.copy(ROOT / "stages/__init__.py", tmp_path / "stages")
    own = tmp_path / "src/erv/__init__.py"
    own.parent.mkdir(parents=True)
    own.write_text("")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if installed is not None:
        variables["PYTHONPATH"] = str(installed)
    said = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(own), str(own)]


def test_without_a_copy_nothing_changes() -> None:
    ask = (
        "import os, sys\nbefore = list(sys.path)\nimport stages\n"
        "print(before == sys.path, os.environ.get('PYTHONPATH'))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    said = subprocess.run(
        [sys.executable, "-c", ask], cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", str(ROOT / "src")]


def test_a_copy_has_the_servers_of_its_original(tmp_path: Path) -> None:
    original, copy = tmp_path / "repo", tmp_path / "repo/.dvc/tmp/exps/tmp1"
    for folder, port in ((original, 1), (copy, 2)):
        (folder / ".erv").mkdir(parents=True)
        (folder / ".erv/stack.env").write_text(f"ERV_MLFLOW_URI=http://127.0.0.1:{port}\n")
    asked = {"DVC_ROOT": str(original)}
    assert load_environment(copy, asked).mlflow_uri == "http://127.0.0.1:2"
    (copy / ".erv/stack.env").unlink()
    assert load_environment(copy, asked).mlflow_uri == "http://127.0.0.1:1"
    assert load_environment(copy, asked).workspace == copy
    assert load_environment(copy, {}).mlflow_uri is None
