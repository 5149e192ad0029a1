"""Every script in benchmarks/ starts, works at a tiny size, and says in one sentence what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import parts as gpu_parts

ROOT = Path(__file__).parents[2]
SLOW = pytest.mark.slow

# Script, whether it is started with `-m`, options; OUT is a path for the results. Slow: over five seconds.
SMALL = [
    pytest.param("answers", True, "--answers 20 --kills 1 --databases sqlite --results OUT", marks=SLOW),
    pytest.param("compare", False, "--clips 60 --rounds 1 --results OUT", marks=SLOW),
    pytest.param("corpus", False, "--size tiny", marks=SLOW),
    pytest.param("extract", False, "--clips 2 --rounds 1 --results OUT", marks=SLOW),
    pytest.param(
        "extract_engines",
        False,
        "--parts size small --clips 4 --rounds 1 --engines local --results OUT",
        marks=SLOW,
    ),
    pytest.param("full_size", False, "--sizes 12 24 --skip-official --out OUT", marks=SLOW),
    pytest.param(
        "gpu_proof", True, "--device cpu --size tiny --rounds 1 --only vectors decode --out OUT", marks=SLOW
    ),
    pytest.param("grpo", True, "--size tiny --steps 1 --group 2 --out OUT", marks=SLOW),
    pytest.param("grpo_profile", True, "--size tiny --steps 1", marks=SLOW),
    pytest.param("serving", True, "--size tiny --tokens 4 --clients 1 2 --each 1 --results OUT", marks=SLOW),
    pytest.param("shards", False, "--clips 4 --size 64 --rounds 1 --results OUT"),
    pytest.param("validate", False, "--clips 1 --rounds 1 --results OUT"),
    pytest.param("validate", False, "--clips 1 --rounds 1 --profile", marks=SLOW),
    pytest.param("verifier", False, "--rounds 1 --steps 1 --completions 2 --out OUT", marks=SLOW),
]
# Scripts that need a finished demo, the first thing that they miss in an empty folder, and whether they also
# need its servers.
AFTER_DEMO = [
    pytest.param("demo", ".erv/stack/prefect/prefect.db", False),
    pytest.param("evaluate", "params.yaml", False, marks=SLOW),
    pytest.param("grpo_demo", "params.yaml", False, marks=SLOW),
    pytest.param("grpo_profile", "params.yaml", False, marks=SLOW),
    pytest.param("lineage", "params.yaml", True),
    pytest.param("noop", "dvc.lock", True),
    pytest.param("noop_distributed", "dvc.lock", True),
    pytest.param("record_rollouts", "params.yaml", False),
    pytest.param("stage_start", "dvc.lock", True),
    pytest.param("variants", "params.yaml", False, marks=SLOW),
]
# Parts of other scripts: `grpo` starts `grpo_worker`, and imports do the rest.
PARTS = {
    "grpo_before",
    "grpo_flops",
    "grpo_measured",
    "grpo_sizes",
    "grpo_ways",
    "grpo_worker",
    "operators",
    "serving_clients",
    "serving_policy",
    "validate_split",
    "workspace",
}

# What `gpu_proof` starts as processes; the rest of `gpu/` is imported by them.
GPU_PROCESSES = {"one_part", "probe", "training_run"}


def start(
    script: str, options: list[str], folder: Path, *, as_module: bool = False
) -> subprocess.CompletedProcess[str]:
    """Starts a script as its docstring says."""
    paths = [str(ROOT / "src"), *([str(ROOT)] if as_module else [])]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ERV_")}
    command = ["-m", f"benchmarks.{script}"] if as_module else [str(ROOT / "benchmarks" / f"{script}.py")]
    return subprocess.run(
        [sys.executable, *command, *options],
        cwd=folder,
        env=variables | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("script", "as_module", "options"), SMALL)
def test_it_works_at_a_tiny_size(script: str, as_module: bool, options: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    given = [str(results) if option == "OUT" else option for option in options.split()]
    done = start(script, given, ROOT, as_module=as_module)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout
    assert results.is_file() is ("OUT" in options)


@pytest.mark.parametrize(("script", "missing", "_"), AFTER_DEMO)
def test_without_a_demo_it_says_so(script: str, missing: str, _: bool, tmp_path: Path) -> None:
    done = start(script, [], tmp_path, as_module=script.startswith(("grpo_", "variants", "evaluate")))
    assert done.returncode == 1
    assert done.stderr == f"error: {missing} not found; run `make demo` in that workspace first\n"
    assert done.stdout == ""


@pytest.mark.parametrize("script", [case.values[0] for case in AFTER_DEMO if case.values[2]])
def test_without_its_servers_it_says_so(script: str, tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "dvc.lock").touch()
    (tmp_path / "report").mkdir()
    done = start(script, [], tmp_path)
    assert done.returncode == 1
    assert done.stderr == "error: s3 is stopped; run `erv stack up` in that workspace first\n"


def test_a_claim_is_read_without_running_anything(tmp_path: Path) -> None:
    done = start("claim", ["--check"], tmp_path, as_module=True)
    lines = done.stdout.splitlines()
    said = [line.split(": ")[0] for line in lines if line.startswith(("holds: ", "fails: ", "not yet: "))]
    assert len(said) == 6
    assert done.returncode == (0 if set(said) == {"holds"} else 1), done.stderr


def test_a_claim_without_results_says_so(tmp_path: Path) -> None:
    results = str(tmp_path / "claim.json")
    done = start("claim", ["--check", "--out", results], tmp_path, as_module=True)
    assert done.returncode == 1
    assert done.stderr == f"{results}: no results; run `python -m benchmarks.claim` without --check first\n"


@SLOW
def test_a_workspace_of_other_code_is_refused_in_words(tmp_path: Path) -> None:
    for name in ("models/policy/sft", "models/verifier", "data/shards", "data/manifest"):
        (tmp_path / name).mkdir(parents=True)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("  beta: ", "  alpha: ", 1), encoding="utf-8")
    done = start("record_rollouts", [], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: params.yaml: 2 faults\n")
    assert "grpo.beta: missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_nothing_can_not_be_measured(tmp_path: Path) -> None:
    for wrong in ("0", "-1", "many"):
        done = start("shards", ["--clips", wrong], tmp_path)
        assert done.returncode == 2
        assert f"argument --clips: '{wrong}' is not a whole number above 0" in done.stderr


def test_no_script_is_missing_here() -> None:
    started = {str(case.values[0]) for case in [*SMALL, *AFTER_DEMO]} | {"claim"}
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == started | PARTS
    assert not started & PARTS
    for name in PARTS - {"grpo_worker"}:
        assert "__main__" not in (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")


def test_the_parts_of_the_gpu_proof_are_started_by_it_alone() -> None:
    files = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks" / "gpu").glob("*.py")
    }
    assert {name for name, text in files.items() if "__main__" in text} == GPU_PROCESSES
    assert {part.code.partition(":")[0] for part in gpu_parts.PARTS} <= set(files) - GPU_PROCESSES
