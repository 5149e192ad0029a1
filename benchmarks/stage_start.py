"""How long a stage takes from the start of its process to the first line of its work.

    python benchmarks/stage_start.py         # make bench-start, after `make demo` and with its stack up
    python benchmarks/stage_start.py --rounds 5 sft evaluate@erv

Each stage is started with its own command from `dvc.yaml`, hashes its inputs and opens its MLflow run, and is
stopped where its work would begin. Two ways take turns:

- erv: as it is, with MLflow's REST API and libyaml
- before: with MLflow's own client, which every stage imported, and PyYAML's parser in Python

The runs go to an experiment of their own, `stage-start`; the next `erv stack up` closes them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.workspace import demanded, positive, stack_demanded
from erv.environment import child_environment, load_environment
from erv.pipeline import read_stages, select

RESULTS = Path(__file__).with_suffix(".json")
# What runs in the stage's process: argv is the way, the module and the stage's own arguments.
_PROBE = """
import json, os, resource, runpy, sys, time
import psutil
started = psutil.Process().create_time()
way, module = sys.argv[1:3]
sys.argv = [module, *sys.argv[3:]]
if way == "before":
    import yaml
    del yaml.CSafeLoader
    from erv.tracking import delivery
    class WithMlflow(delivery.Rest):
        def __init__(self, environment, **options):
            from mlflow import MlflowClient
            MlflowClient(tracking_uri=environment.mlflow_uri)
            super().__init__(environment, **options)
    delivery.Rest = WithMlflow
from erv import stage
def run_stage(name, main, *options, **more):
    def work(*_):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        taken = {"seconds": time.time() - started, "cpu": usage.ru_utime + usage.ru_stime}
        print(json.dumps(taken), flush=True)
        os._exit(0)
    real(name, work, *options, **more)
real, stage.run_stage = stage.run_stage, run_stage
runpy.run_module(module, run_name="__main__")
"""
WAYS = ("erv", "before")


def started(way: str, command: str, environment: dict[str, str]) -> dict[str, float]:
    """Seconds of wall time and of CPU until the work of a stage would begin.

    Raises:
        SystemExit: the stage failed before.
    """
    python, flag, *rest = shlex.split(command)
    if (python, flag) != ("python", "-m"):
        sys.exit(f"{command}: not a Python module")
    result = subprocess.run(
        [sys.executable, "-c", _PROBE, way, *rest],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        sys.exit(f"{command}:\n{result.stderr[-2000:]}")
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures the stages in turns, prints them and writes the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stages", nargs="*", help="stages or groups; one of each group by default")
    parser.add_argument("--rounds", type=positive, default=3, help="starts of each way (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the result goes (%(default)s)")
    options = parser.parse_args()
    demanded(Path(), "dvc.lock", "report")
    stack_demanded(Path())
    known = read_stages()
    one_of_each = {stage.group: stage for stage in reversed(known)}
    wanted = options.stages or [stage.name for stage in one_of_each.values()]
    chosen = [stage for stage in select(known, wanted) if {stage.name, stage.group} & {*wanted}]
    environment = child_environment(load_environment())
    environment |= {"ERV_MLFLOW_EXPERIMENT": "stage-start", "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    table: dict[str, Any] = {}
    for stage in chosen:
        turns: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(options.rounds + 1):
            for way, found in turns.items():
                one = started(way, stage.command, environment)
                if number:  # the first round fills caches
                    found.append(one)
        row = {
            f"{way} {key}": round(median(one[key] for one in found), 2)
            for way, found in turns.items()
            for key in ("seconds", "cpu")
        }
        ratio = median(b["cpu"] / a["cpu"] for a, b in zip(turns["erv"], turns["before"], strict=True))
        table[stage.name] = {**row, "times_faster_cpu": round(ratio, 2)}
        print(f"{stage.name:<20} {table[stage.name]}", flush=True)
    result = {
        "command": "python benchmarks/stage_start.py",
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "stages": table,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
