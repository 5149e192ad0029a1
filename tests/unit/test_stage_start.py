"""What a stage loads before its work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HEAVY = {
    "accelerate", "datasets", "dvc", "great_expectations", "matplotlib", "mlflow", "pandas", "peft", "scipy",
    "sklearn", "torch", "transformers", "trl",
}  # fmt: skip
LOADED = """
import importlib, json, os, sys
from pathlib import Path
os.environ["ERV_MLFLOW_URI"] = "http://127.0.0.1:9"
from erv.environment import load_environment
from erv.tracking.opening import open_run
for name in sys.argv[1:]:
    importlib.import_module(f"stages.{name}")
run = open_run(load_environment(Path(sys.argv[0]).parent), "sft", "sft")
run.log_metrics({"loss": 1.0})
run.close("KILLED")
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The libraries that all stages load together, and an MLflow run that is logged to."""
    script = tmp_path_factory.mktemp("start") / "loaded.py"
    script.write_text(LOADED)
    names = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
    result = subprocess.run(
        [sys.executable, str(script), *names],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stdout.split())


def test_stages_start_without_what_only_their_work_needs(loaded: set[str]) -> None:
    """`import mlflow` alone took two seconds of every stage, before it hashed its inputs."""
    assert loaded & HEAVY == set()
    assert {"erv", "stages", "requests"} <= loaded
