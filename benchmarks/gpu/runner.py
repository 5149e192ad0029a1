"""Starts a part in a process of its own, and ends it with all its children when its time is up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.figures import read_figures
from benchmarks.gpu.one_part import LACKS
from benchmarks.gpu.parts import Part

ROOT = Path(__file__).parents[2]


def environment(wheels: Path | None) -> dict[str, str]:
    """The variables of the parts: this checkout's code, the wheels, and no look at any network."""
    paths = [str(ROOT / "src"), str(ROOT), *([str(wheels)] if wheels else [])]
    before = os.environ.get("PYTHONPATH")
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "DO_NOT_TRACK": "1", "WANDB_MODE": "disabled"}
    return os.environ | quiet | {"PYTHONPATH": os.pathsep.join([*paths, *([before] if before else [])])}


def run_part(
    part: Part, size: str, device: str, rounds: int, limit: float, variables: Mapping[str, str]
) -> dict[str, Any]:
    """Runs a part.

    Args:
        part: the part.
        size: size of the policy.
        device: `cuda` or `cpu`.
        rounds: measured turns.
        limit: seconds after which it is killed.
        variables: of its process, from `environment`.

    Returns:
        `status` (passed, failed, lacks or stopped), `why` (a sentence, empty if passed), `seconds`,
        `headline` and `figures`.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-proof-") as folder:
        out, log = Path(folder) / "figures.json", Path(folder) / "log"
        command = [sys.executable, "-m", "benchmarks.gpu.one_part", part.name, "--size", size]
        command += ["--device", device, "--rounds", str(rounds), "--out", str(out)]
        with log.open("w+", encoding="utf-8", errors="replace") as stream:
            process = subprocess.Popen(
                command, cwd=ROOT, env=dict(variables), stdout=stream, stderr=stream, start_new_session=True
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                if process.poll() is None:
                    end_tree(process)
        found = read_figures(out)
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    last = lines[-1][:400] if lines else "it wrote nothing"
    if code is None:
        status, why = "stopped", f"it took longer than its {limit:.0f} s"
    elif code == LACKS:
        status, why = "lacks", last
    elif code or found["faults"]:
        status, why = "failed", "; ".join(found["faults"]) or f"it ended with {code}: {last}"
        print("\n".join(lines[-40:]), file=sys.stderr)
    else:
        status, why = "passed", ""
    return {
        "status": status,
        "why": why,
        "seconds": round(time.monotonic() - started, 1),
        "headline": found["headline"],
        "figures": found["figures"],
    }


def end_tree(process: subprocess.Popen[Any]) -> None:
    """Kills a process and all that it started; launchers give their children sessions of their own."""
    import psutil  # accelerate needs it, so whatever could start a part has it

    try:
        tree = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    process.kill()
    for child in tree:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
