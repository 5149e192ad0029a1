"""The GPU proof: what it says without a GPU, and that its parts hold and can fail on a CPU."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu import greedy, record, vectors
from benchmarks.gpu.bench import GROUP, Bench
from benchmarks.gpu.decoding import by_engine, hold_engine
from benchmarks.gpu.figures import Context, Figures, read_figures
from benchmarks.gpu.lacks import lacks, other_versions
from benchmarks.gpu.largest import OutOfMemory, double
from benchmarks.gpu.one_part import run
from benchmarks.gpu.parts import BY_NAME, LIMIT, PACKAGES, PARTS, chosen
from benchmarks.gpu.policies import peak
from benchmarks.gpu.precision import _turned
from benchmarks.gpu.probe import needed, probe
from benchmarks.gpu.runner import end_tree, environment, run_part
from benchmarks.gpu.table import BEGIN, DOCUMENT, END, table, with_table
from benchmarks.gpu.wheels import WheelError, unpack
from benchmarks.gpu_proof import SIZES as NAMES
from benchmarks.gpu_proof import main, verdict
from benchmarks.grpo_sizes import SIZES, Size
from erv.doctor.fit import Estimate
from erv.training.grpo import trainer
from erv.training.grpo.engine.client import EngineClient
from erv.training.grpo.engine.text_model import write_text_folder
from tests.support.bare_environment import write_bare_environment
from tests.support.paths import ROOT
from tests.support.sizes import SMALLEST

TINY = Size(
    replace(SMALLEST, mels=32, vocabulary=400),
    prompts=2,
    completion=6,
    changes={"text_config": {"vocab_size": 700}},
)
STARTS_PROCESSES = ("resume", "ddp")
BIG = {
    "python": "3.12.3",
    "system": "Linux x86_64",
    "cores": 16,
    "disk_free": 60e9,
    "gpus": [{"name": "A GPU", "bytes": 150e9}],
    "why_no_gpu": "",
    "there": {"torch": "2.13.0", "transformers": "5.23.0"},
    "missing": {},
    "vllm": "no vLLM here",
    "extras_missing": {"deepspeed": {"deepspeed": "zero2"}, "bitsandbytes": {"bitsandbytes": "qlora"}},
    "extras_there": {"deepspeed": None, "bitsandbytes": None},
}


def ran(name: str, folder: Path) -> tuple[int, dict]:
    """Runs a part in this process at the smallest size; returns its code and what it wrote."""
    out = folder / "figures.json"
    (folder / "work").mkdir()
    code = run(name, Context("tiny", "cpu", 1, folder / "work", Figures(out)))
    return code, dict(read_figures(out))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(part.name, marks=pytest.mark.slow if part.name in STARTS_PROCESSES else ())
        for part in PARTS
        if part.on_cpu and part.size == "0.5b"
    ],
)
def test_every_part_of_a_cpu_passes_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    if name in STARTS_PROCESSES:
        monkeypatch.setenv("PYTHONPATH", environment(None)["PYTHONPATH"])
    code, found = ran(name, tmp_path)
    assert found["faults"] == []
    assert code == 0
    assert found["headline"]
    for seconds in found["figures"].get("seconds", {}).values():
        assert seconds > 0


def test_a_part_whose_figures_are_off_fails_and_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "LIMIT", 1e-9)
    code, found = ran("vectors", tmp_path)
    assert code == 1
    assert any("logits is" in fault and "at most 1e-09 was expected" in fault for fault in found["faults"])
    assert found["figures"]["humanomni_parity: logits"]["limit"] == 1e-9


def test_a_fast_path_that_writes_other_tokens_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, where rounding may move a draw, nothing was held, and a speed was all that was told."""
    monkeypatch.setitem(SIZES, "tiny", TINY)
    right = trainer.write_with_static_cache

    def wrong(*args: Any, **options: Any) -> list[list[int]]:
        return [[*row[:-2], (row[-2] + 1) % 256, row[-1]] for row in right(*args, **options)]

    monkeypatch.setattr(trainer, "write_with_static_cache", wrong)
    code, found = ran("decode", tmp_path)
    assert code == 1
    assert any(fault.startswith("greedy tokens that differ, static cache is ") for fault in found["faults"])
    assert found["figures"]["greedy tokens that differ, static cache"]["limit"] == 1e-3


def test_only_tokens_that_are_as_probable_may_differ() -> None:
    class Scores:
        """Token t is t nats less probable than 0."""

        def scores(self, completions: torch.Tensor) -> torch.Tensor:
            return -completions.float()

    one = torch.tensor([[0, 0, 0], [0, 0, 0]])
    bench: Any = Scores()
    assert greedy.gap(bench, one, one) == 0.0
    # What follows the first difference has another prefix, and says nothing.
    assert greedy.gap(bench, one, torch.tensor([[0, 1, 9], [0, 0, 2]])) == 2.0


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, None),
        ({"greedy": {"vLLM": 0.5}}, "greedy tokens that differ, vLLM is 0.5, at most 0.15 was expected"),
        (
            {"difference": {"engine/kl": 0.2}},
            "KL of the engine to the policy is 0.2, at most 0.01 was expected",
        ),
        (
            {"difference": {"engine/kl": math.nan}},
            "KL of the engine to the policy is nan, at most 0.01 was expected",
        ),
    ],
)
def test_an_engine_that_is_another_model_fails(
    changed: dict[str, Any], fault: str | None, tmp_path: Path
) -> None:
    figures = Figures(tmp_path / "figures.json")
    row = {"greedy": {"vLLM": 0.02}, "difference": {"engine/kl": 1e-4}} | changed
    hold_engine(Context("0.5b", "cuda", 1, tmp_path, figures), row)
    assert figures.faults == ([] if fault is None else [fault])


def test_a_figure_that_is_no_number_is_a_fault(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "figures.json")
    figures.check("a gap", 0.5, 1.0)
    figures.hold("it holds", True)
    assert figures.faults == []
    figures.check("a gap", float("nan"), 1.0)
    figures.hold("it holds", False)
    assert read_figures(tmp_path / "figures.json")["faults"] == [
        "a gap is nan, at most 1 was expected",
        "not true: it holds",
    ]


def test_only_pairs_that_turn_round_count() -> None:
    assert _turned([1.0, 2.0, 3.0], [1.0, 2.0, 2.0]) == 0.0
    assert _turned([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) == pytest.approx(1 / 3)


def test_batches_double_until_memory_is_out(tmp_path: Path) -> None:
    figures, cleared = Figures(tmp_path / "figures.json"), []

    def step(clips: int) -> dict[str, int]:
        if clips > 5:
            raise OutOfMemory
        return {"clips": clips}

    assert double(step, lambda: cleared.append(True), 64, figures) == 4
    assert cleared == [True]
    assert list(figures.values["batches"]) == ["1", "2", "4"]
    assert (figures.values["largest_clips"], figures.values["out_of_memory_at"]) == (4, 8)
    assert double(lambda clips: {}, list, 64, Figures(tmp_path / "all.json")) == 64


def test_the_peak_stands_beside_the_estimate() -> None:
    found = peak(Estimate("grpo", {"weights": 3_000_000_000, "CUDA": 1_000_000_000}), 2.5, 3.0)
    assert found["estimated_gb"] == 4.0
    assert found["peak_against_estimate"] == 0.75


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("grpo", {"gpus": [], "why_no_gpu": "torch sees no GPU"}, "no CUDA device: torch sees no GPU"),
        (
            "grpo",
            {"missing": {"trl": "the proof", "dill": "datasets"}},
            "packages: dill (for datasets), trl (for the proof); bring it as a wheel (--wheels)",
        ),
        ("zero3", {}, "packages: deepspeed (for zero2); bring it as a wheel (--wheels)"),
        ("vllm", {}, "vLLM: no vLLM here"),
        (
            "grpo-7b",
            {"gpus": [{"name": "A GPU", "bytes": 24e9}]},
            "memory: the GPU has 24 GB, this part needs 100",
        ),
        ("resume", {"disk_free": 3e9}, "disk: 3 GB are free below TMPDIR, this part needs 40"),
    ],
)
def test_it_names_what_a_part_lacks(name: str, changes: dict, reason: str) -> None:
    part = BY_NAME[name]
    assert lacks(part, BIG | changes, "cuda", part.size) == [reason]


def test_a_machine_that_has_everything_lacks_nothing() -> None:
    everything = BIG | {"vllm": "", "extras_missing": {"deepspeed": {}, "bitsandbytes": {}}}
    assert [part.name for part in PARTS if lacks(part, everything, "cuda", part.size)] == []


def test_other_versions_are_named_and_stop_nothing() -> None:
    found = BIG | {"there": {"torch": "1.13.0", "unknown": "1"}}
    (sentence,) = other_versions(found)
    assert sentence.startswith("torch 1.13.0, where erv is made for ")
    assert lacks(BY_NAME["grpo"], found, "cuda", "0.5b") == []


def test_this_environment_has_what_the_parts_need() -> None:
    there, missing = needed(PACKAGES)
    assert missing == {}
    assert "xxhash" in there  # what datasets needs
    assert needed(("nosuch-package",), "a part") == ({}, {"nosuch-package": "a part"})
    assert set(probe()) == set(BIG)


def test_parts_of_the_proof_fit_its_limits() -> None:
    assert all(part.seconds <= LIMIT for part in PARTS)
    assert len(BY_NAME) == len(PARTS)
    assert set(NAMES) == set(SIZES)
    assert [part.name for part in chosen(None, "cuda", None)] == list(BY_NAME)
    assert all(part.on_cpu for part in chosen(None, "cpu", None))
    assert "grpo-7b" not in [part.name for part in chosen(None, "cuda", "tiny")]
    assert [part.name for part in chosen(["vllm"], "cpu", None)] == ["vllm"]


@pytest.mark.long
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "vectors"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: there is no CUDA device here (torch")
    assert output.err.endswith("--dry-run names what else is missing\n")


@pytest.mark.long
@pytest.mark.usefixtures("no_gpu")
def test_make_passes_its_own_dry_run_on() -> None:
    command = ["make", "gpu-proof", "--dry-run", f"GPU_PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert any(line.startswith(f"Python {sys.version.split()[0]}, ") for line in lines)
    assert any(line.startswith("grpo: can't run; no CUDA device: torch") for line in lines)
    assert any(line.startswith("zero3: lacks an extra; ") for line in lines)
    assert done.returncode == 2  # make's own, for a script that ended with 1


@pytest.mark.long
def test_on_a_cpu_the_dry_run_finds_nothing_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--device", "cpu", "--size", "tiny"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    said = dict(line.split(": ", 1) for line in lines)
    assert {said[part.name] for part in PARTS if part.on_cpu and part.size == "0.5b"} == {"would run"}


@pytest.mark.long
def test_figures_are_written_part_by_part_with_what_made_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "proof.json"
    record.write(out, "grpo", {"status": "passed"})
    given = ["--device", "cpu", "--size", "tiny", "--rounds", "1", "--out", str(out)]
    assert main([*given, "--only", "vectors", "vllm"]) == 1  # an extra, but it was asked for
    entries = json.loads(out.read_text())["parts"]
    assert list(entries) == ["grpo", "vectors", "vllm"]
    entry = entries["vectors"]
    assert (entry["status"], entry["why"], entry["size"]) == ("passed", "", "tiny")
    assert entry["machine"]["device"] == "cpu"
    assert entry["versions"]["torch"] == torch.__version__
    assert entry["commit"]
    assert entry["seconds"] > 0
    assert entries["vllm"]["status"] == "lacks"
    output = capsys.readouterr()
    assert "1 of 2 parts passed" in output.out
    assert "vllm lacks (an extra): it says nothing without a GPU" in output.err


def test_the_exit_code_tells_a_failure_from_a_missing_extra(capsys: pytest.CaptureFixture[str]) -> None:
    passed = {"status": "passed", "why": ""}
    missing = {"status": "lacks", "why": "packages: deepspeed"}
    assert verdict({"grpo": passed, "zero3": missing}) == 0
    assert verdict({"grpo": passed, "zero3": missing}, asked=True) == 1
    assert verdict({"grpo": missing}) == 1
    assert verdict({"zero3": {"status": "stopped", "why": "it took longer than its 300 s"}}) == 1
    assert "zero3 stopped: it took longer than its 300 s" in capsys.readouterr().err


@pytest.mark.long
def test_a_part_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    entry = run_part(BY_NAME["towers"], "nosuch", "cpu", 1, 300, environment(None))
    assert (entry["status"], entry["why"]) == ("failed", "KeyError: 'nosuch'")
    assert "Traceback" in capsys.readouterr().err


def test_a_part_is_ended_at_its_limit() -> None:
    started = time.monotonic()
    entry = run_part(BY_NAME["precision"], "tiny", "cpu", 1, 0.3, environment(None))
    assert (entry["status"], entry["why"]) == ("stopped", "it took longer than its 0 s")
    assert time.monotonic() - started < 30


def test_no_child_outlives_a_part_even_in_a_session_of_its_own() -> None:
    script = (
        "import subprocess, sys, time;"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)'];"
        "child = subprocess.Popen(sleep, start_new_session=True);"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    end_tree(process)
    assert process.returncode == -signal.SIGKILL
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.long
def test_the_part_under_way_ends_with_the_proof() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu_proof",
        "--device",
        "cpu",
        "--size",
        "50m",
        "--only",
        "grpo",
    ]
    proof = subprocess.Popen(command, cwd=ROOT, env=environment(None), stdout=subprocess.DEVNULL)
    part = None
    for _ in range(600):
        found = [one for one in psutil.Process(proof.pid).children() if "grpo" in one.cmdline()]
        if found:
            (part,) = found
            break
        time.sleep(0.1)
    proof.terminate()
    assert proof.wait(60) == 143
    assert part is not None
    assert not part.is_running()


def wheel(folder: Path, tags: str = "py3-none-any") -> Path:
    """A wheel of one module that knows its version."""
    folder.mkdir(exist_ok=True)
    path = folder / f"proof_extra-1.5-{tags}.whl"
    files = {
        "proof_extra.py": "VERSION = '1.5'\n",
        "proof_extra-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: proof-extra\nVersion: 1.5\n",
        "proof_extra-1.5.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tags}\n",
        "proof_extra-1.5.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_wheels_reach_the_parts_alone(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels")
    unpack(tmp_path / "wheels", tmp_path / "site")
    code = (
        "import proof_extra as extra; from importlib.metadata import version;"
        "print(extra.VERSION, version('proof-extra'))"
    )
    variables = environment(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1.5", "1.5"]
    without = subprocess.run(
        [sys.executable, "-c", code], env=environment(None), capture_output=True, check=False
    )
    assert without.returncode == 1


def test_wheels_that_do_not_fit_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        WheelError, match=r"empty: no wheels \(\*\.whl\) there; name the folder that holds them"
    ):
        unpack(tmp_path / "empty", tmp_path / "site")
    wheel(tmp_path / "wheels", "cp27-cp27m-win32")
    assert main(["--dry-run", "--wheels", str(tmp_path / "wheels")]) == 1
    assert "is not a supported wheel on this platform" in capsys.readouterr().err


@pytest.mark.slow
def test_the_parts_need_nothing_but_what_the_dry_run_names(tmp_path: Path) -> None:
    """In an environment without MLflow, boto3, Prefect and the rest, the parts of a CPU pass."""
    there, _ = needed((*PACKAGES, "packaging"))
    python = write_bare_environment(tmp_path / "venv", there)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    only = [part.name for part in PARTS if part.on_cpu and part.size == "0.5b" and part.name != "released"]
    done = subprocess.run(
        [str(python), "-m", "benchmarks.gpu_proof", "--device", "cpu", "--size", "tiny", "--rounds", "1",
         "--only", *only, "--out", str(tmp_path / "proof.json")],
        cwd=ROOT,
        env=variables | {"PYTHONPATH": f"src{os.pathsep}."},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(only)} of {len(only)} parts passed" in done.stdout


ENTRY = {
    "status": "passed",
    "why": "",
    "headline": "2 s a step | fine",
    "machine": {"device": "NVIDIA H100"},
    "versions": {"torch": "2.13.0"},
    "commit": "0123456789abcdef",
}


def test_the_table_tells_measured_parts_from_others() -> None:
    failed = ENTRY | {"status": "failed", "why": "a gap is 2"}
    on_cpu = ENTRY | {"machine": {"device": "cpu"}}
    lines = table({"grpo": ENTRY, "sft": failed, "ddp": on_cpu}).splitlines()
    rows = {line.split("`")[1]: line for line in lines[2:]}
    assert list(rows) == list(BY_NAME)
    assert "| 2 s a step \\| fine; NVIDIA H100, torch 2.13.0, 01234567 |" in rows["grpo"]
    assert "| **failed**: a gap is 2; NVIDIA H100" in rows["sft"]
    assert "not measured yet" in rows["ddp"]
    with pytest.raises(ValueError, match="needs these two lines"):
        with_table("no markers", {})
    assert with_table(f"a\n{BEGIN}\nold\n{END}\nb", {}) == f"a\n{BEGIN}\n\n{table({})}\n\n{END}\nb"


def test_the_table_of_the_document_is_that_of_the_committed_figures() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_table(text, record.read(record.RESULTS)) == text, (
        "run `python -m benchmarks.gpu_proof --table`"
    )


@pytest.mark.slow
def test_the_row_of_vllm_compares_with_what_an_engine_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)
    bench = Bench("tiny", "cpu", tmp_path, 1)
    policy = bench.policy
    with EngineClient(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "text_engine.py")],
        lambda folder: write_text_folder(policy.model, policy.processor.tokenizer, folder),
        {"dtype": "float32"},
    ) as engine:
        row = by_engine(bench, engine)
    difference = row["difference"]
    assert difference["greedy rows equal"] == f"{2 * GROUP} of {2 * GROUP}"
    assert difference["engine/kl"] < 1e-3
    assert difference["log-probabilities"] < 0.05  # placeholders and the end are never drawn
    assert set(row["seconds"]) == {"growing cache", "vLLM"}
    assert row["greedy"] == {"vLLM": 0.0}
    figures = Figures(tmp_path / "figures.json")
    hold_engine(Context("tiny", "cpu", 1, tmp_path, figures), row)
    assert figures.faults == []
