"""What a run of the pipeline costs in which no stage has anything to do.

    python benchmarks/noop.py                # make bench-noop, after `make demo` and with its stack up
    python benchmarks/noop.py --rounds 3

Three ways take turns in the workspace of a finished run, each in processes of its own:

- erv: `erv run`, from its start to its end: the checks, one question to DVC, a Prefect task per stage, the
  links to the earlier MLflow runs, the push, the candidate and its lineage
- per stage: the same flow, which asks DVC with one `dvc repro --pull` per stage, two at a time
- dvc: `dvc repro` of everything, which checks, tracks, stores and registers nothing

Wall time depends on what else the machine does, CPU seconds hardly. They count all processes that were
started; the three servers are not among them. If some stage was not unchanged, the script says so and ends.
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
import time
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.workspace import demanded, positive, stack_demanded
from erv.environment import load_environment
from erv.stack.launch import prefect_environment

RESULTS = Path(__file__).with_suffix(".json")
_PER_STAGE = """
import sys
from erv import pipeline
pipeline.ask_unchanged = lambda *arguments, **options: pipeline.Unchanged(frozenset(), 0.0)
from flows.run import main
sys.exit(main([]))
"""
WAYS = {
    "erv": [sys.executable, "-c", "from erv.cli import main; main()", "run"],
    "per stage": [sys.executable, "-c", _PER_STAGE],
    "dvc": [sys.executable, "-m", "dvc", "repro"],
}


def measured(way: str) -> dict[str, float]:
    """Seconds of wall time and of CPU that a way takes, and how many stages it found.

    Raises:
        SystemExit: it failed, or some stage was not unchanged.
    """
    before, started = _cpu_of_children(), time.monotonic()
    result = subprocess.run(
        WAYS[way], env=prefect_environment(load_environment()), capture_output=True, text=True, check=False
    )
    seconds, cpu = time.monotonic() - started, _cpu_of_children() - before
    if result.returncode != 0:
        sys.exit(f"{way} failed:\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")
    stages = len(re.findall("didn't change, skipping", result.stdout + result.stderr))
    if way != "dvc" and f"{stages} stages: {stages} unchanged" not in result.stdout:
        sys.exit(f"{way}: not every stage was unchanged; run `erv run` first\n{result.stdout[-2000:]}")
    return {"seconds": seconds, "cpu": cpu, "stages": stages}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measures the ways in turns, prints them and writes the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each way (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the result goes (%(default)s)")
    options = parser.parse_args()
    demanded(Path(), "dvc.lock", "report")
    stack_demanded(Path())
    turns: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in range(options.rounds + 1):
        for way, found in turns.items():
            one = measured(way)
            if number:  # the first round fills caches
                found.append(one)
                print(f"{way:<10} {one['seconds']:6.1f} s  {one['cpu']:6.1f} CPU s", flush=True)
    result: dict[str, Any] = {
        "command": "python benchmarks/noop.py",
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}",
        "stages": int(turns["erv"][0]["stages"]),
        "ways": {
            way: {key: round(median(one[key] for one in found), 2) for key in ("seconds", "cpu")}
            for way, found in turns.items()
        },
        "times_faster": {
            key: round(
                median(b[key] / a[key] for a, b in zip(turns["erv"], turns["per stage"], strict=True)), 2
            )
            for key in ("seconds", "cpu")
        },
    }
    for way, values in result["ways"].items():
        print(f"median of {way}: {values['seconds']} s, {values['cpu']} CPU s")
    ratio = result["times_faster"]
    print(f"{result['stages']} stages: one question is {ratio['seconds']} times faster, CPU {ratio['cpu']}")
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
