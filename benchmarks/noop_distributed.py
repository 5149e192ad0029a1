"""What `train/distributed` costs above plain `dvc repro`, in which no stage has anything to do.

    python benchmarks/noop_distributed.py               # make bench-noop-distributed, after `make demo`
    python benchmarks/noop_distributed.py --rounds 3

Three ways take turns in the workspace of a finished run whose stack is up, each in processes of its own:

- dvc: `dvc repro` of everything, which checks, tracks, stores and registers nothing
- erv: `erv run` with the placement of the deployment, from its start to its end
- deployment: `prefect deployment run train/distributed --watch`, from its start to its end, by a worker of
  the clone that is up already: its wait for the next run and the start of the run's process count

The overhead of a round is what its turns took longer than its `dvc repro`. Wall time depends on what else the
machine does, which turns of one round meet about the same; CPU seconds hardly do. They count all processes
that were started, the worker's too; the three servers are not among them. The script deploys and starts the
worker, and ends it. If some stage was not unchanged, it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.workspace import demanded, positive, stack_demanded
from erv.environment import load_environment
from erv.stack.launch import prefect_environment
from erv.stack.pools import pool_of, worker_is_online

RESULTS = Path(__file__).with_suffix(".json")
DEPLOYMENT = "train/distributed"
ERV = [sys.executable, "-c", "from erv.cli import main; main()", "run"]
PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
TARGET_SECONDS = 20.0
_START_SECONDS = 180.0
_END_SECONDS = 30.0


def placement() -> list[str]:
    """That of the deployment, as `prefect.yaml` has it."""
    items = yaml.safe_load(Path("prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    (found,) = [item["parameters"]["placement"] for item in items if item["name"] == "distributed"]
    return list(found)


def ways() -> dict[str, list[str]]:
    """The command of each way."""
    return {
        "dvc": [sys.executable, "-m", "dvc", "repro"],
        "erv": [*ERV, *(f"--placement={one}" for one in placement())],
        "deployment": [*PREFECT, "deployment", "run", DEPLOYMENT, "--watch"],
    }


@dataclass(frozen=True)
class Turn:
    """What one turn of a way took, in seconds of wall time and of CPU."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Worker:
    """A worker that is up: its process, and the file with what it prints."""

    process: psutil.Process
    log: Path

    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8")

    def cpu(self) -> float:
        """CPU seconds of it and of the processes that it has started and that have ended."""
        times = self.process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)


def measured(way: str, command: Sequence[str], worker: Worker) -> tuple[Turn, int]:
    """What a way takes, and how many stages it found.

    Args:
        way: its name.
        command: what it runs.
        worker: takes the runs of the deployment.

    Raises:
        SystemExit: it failed, or some stage was not unchanged.
    """
    before, started, cpu = len(worker.text()), time.monotonic(), _cpu_of_children() + worker.cpu()
    result = subprocess.run(
        command, env=prefect_environment(load_environment()), capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    said = result.stdout + result.stderr
    if way == "deployment":
        said += _ended(worker, before)
    if result.returncode != 0:
        sys.exit(f"error: {way} failed:\n{said[-3000:]}")
    stages = len(re.findall("didn't change, skipping", said))
    if way != "dvc" and f"{stages} stages: {stages} unchanged" not in said:
        sys.exit(f"error: {way}: not every stage was unchanged; run `erv run` first\n{said[-3000:]}")
    return Turn(seconds, _cpu_of_children() + worker.cpu() - cpu), stages


def _ended(worker: Worker, before: int) -> str:
    """What the worker printed of the run; waits until the run's process, its child, has ended."""
    until = time.monotonic() + _END_SECONDS
    while worker.process.children() and time.monotonic() < until:
        time.sleep(0.1)
    return worker.text()[before:]


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def started_worker(log: Path) -> Iterator[Worker]:
    """A worker of this clone, with the deployments made, while the block runs.

    Raises:
        SystemExit: another one serves the clone, and would take its runs; or it doesn't start.
    """
    here = load_environment()
    if worker_is_online(here, pool_of(here.workspace)):
        sys.exit(
            "error: a worker of this clone is running, and would take the runs; stop it, and wait two minutes"
        )
    environment = prefect_environment(here)
    subprocess.run([*ERV, "--deploy"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*ERV, "--worker"], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            until = time.monotonic() + _START_SECONDS
            while "started!" not in log.read_text(encoding="utf-8"):
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"error: the worker did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
                time.sleep(0.2)
            yield Worker(psutil.Process(process.pid), log)
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:  # started in the background, it may have SIGINT ignored
                process.kill()
                process.wait()


def main() -> None:
    """Measures the ways in turns, prints them and writes the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each way (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the result goes (%(default)s)")
    options = parser.parse_args()
    demanded(Path(), "dvc.lock", "report")
    stack_demanded(Path())
    turns: list[dict[str, Turn]] = []
    loads: list[float] = []
    with tempfile.TemporaryDirectory() as folder, started_worker(Path(folder) / "worker.log") as worker:
        for number in range(options.rounds + 1):
            turn = {}
            for way, command in ways().items():
                turn[way], stages = measured(way, command, worker)
            if number:  # the first round fills caches
                turns.append(turn)
                loads.append(os.getloadavg()[0])
                print(
                    "  ".join(f"{way} {one.wall:.1f} s, {one.cpu:.1f} CPU s" for way, one in turn.items()),
                    flush=True,
                )
    result = summary(turns, stages, loads)
    for way, values in result["overhead_seconds"].items():
        print(f"{way}: {values['median']} s above dvc repro (target: under {TARGET_SECONDS:g})")
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def summary(turns: Sequence[dict[str, Turn]], stages: int, loads: Sequence[float]) -> dict[str, Any]:
    """The figures of the rounds.

    Args:
        turns: of each round, what each way took.
        stages: how many the pipeline has.
        loads: of the machine after each round.
    """

    def spread(values: Sequence[float]) -> dict[str, float]:
        return {
            "median": round(median(values), 2),
            "least": round(min(values), 2),
            "most": round(max(values), 2),
        }

    def above(of: Callable[[Turn], float]) -> dict[str, list[float]]:
        return {way: [of(turn[way]) - of(turn["dvc"]) for turn in turns] for way in ("erv", "deployment")}

    walls, cpus = above(lambda turn: turn.wall), above(lambda turn: turn.cpu)
    return {
        "command": f"python benchmarks/noop_distributed.py --rounds {len(turns)}",
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "load": f"{min(loads):.1f} to {max(loads):.1f}",
        "placement": placement(),
        "stages": stages,
        "seconds": {way: spread([turn[way].wall for turn in turns]) for way in turns[0]},
        "cpu_seconds": {way: spread([turn[way].cpu for turn in turns]) for way in turns[0]},
        "overhead_seconds": {way: spread(values) for way, values in walls.items()},
        "overhead_cpu_seconds": {way: spread(values) for way, values in cpus.items()},
        "target_seconds": TARGET_SECONDS,
        "below_target": max(median(values) for values in walls.values()) < TARGET_SECONDS,
    }


if __name__ == "__main__":
    main()
