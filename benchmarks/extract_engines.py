"""Extraction on local processes, Dask and Ray Data: speed, memory, start, faults, size; the same clips.

    python benchmarks/extract_engines.py                 # make bench-engines
    python benchmarks/extract_engines.py --parts small --clips 300 --results some.json

Ray is no dependency of this project: `pip install "ray[data]"` into an environment of your own, or the
script measures the others. The clips are those of `full_size.py`. All engines have the same two decoders in
processes of their own, and must give the same shards, byte by byte: their digests are compared.

- size: what each engine brings that the pipeline doesn't have, and lines of our code
- small: 1,000 clips, several rounds, the engines in turns
- full: 26,417 clips once, in slices of 16 shards; for each slice the engines take turns, so that other work
  on the machine is the same for all. Ratios are medians over the slices, and of the sums
- drill: a decoder, then a worker is killed in the middle; a clip that makes its decoder crash

Wall time is that of the work; that of starting an engine is separate. CPU time is that of all its processes.
Memory is the most that they took at once (PSS), looked up twice a second.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks` and `tests`

from benchmarks.engines.drill import drill
from benchmarks.engines.installed import code_lines, installed
from benchmarks.engines.watched import Engine, EngineError
from benchmarks.full_size import templates
from benchmarks.workspace import positive
from erv.pinning import pin
from erv.sources.selection import Selection
from tests.support.trees import sign

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_suffix(".json")
LIBRARIES = ("decord", "av", "pillow", "numpy", "pyarrow", "distributed")
ENGINES = ("local", "dask", "ray-chunks", "ray-clips")
BASE = "dask"  # whose time the others are compared with
PARTS = ("size", "small", "drill", "full")
_SLICE = 16  # shards
_DRILL = 640  # clips
_IDLE_SECONDS = 10.0


def write_clips(folder: Path, count: int, clips: Sequence[bytes]) -> Path:
    """Writes the clips and their lock file; returns the lock file."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for index in range(count):
        (raw / f"{index:05d}.mp4").write_bytes(sign(clips[index % len(clips)], index))
    lock = pin("films", str(raw), None, selection=Selection())
    lock.save(folder / "lock.json")
    return folder / "lock.json"


class Contest:
    """Engines that extract the same chunks in turns.

    Args:
        names: the engines.
        lock: lock file of the clips.
        workers: decoders of each.
        scratch: folder for shards and logs.
    """

    def __init__(self, names: Sequence[str], lock: Path, workers: int, scratch: Path) -> None:
        self._names, self._scratch = list(names), scratch
        self._turn = 0
        self._stack = ExitStack()
        self.engines: dict[str, Engine] = {}
        for name in names:
            log = scratch / f"{name}.log"
            self.engines[name] = Engine(name, lock, workers, log, ROOT / "src")
            self._stack.callback(self.engines[name].stop)
        self.chunks = self.engines[self._names[0]].chunks

    def __enter__(self) -> Contest:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def turn(self, first: int, last: int) -> dict[str, dict[str, Any]]:
        """Each engine extracts these chunks, in another order each time.

        Raises:
            SystemExit: an engine failed, or its shards differ from another's.
        """
        shift = self._turn % len(self._names)
        self._turn += 1
        results, digests = {}, {}
        for name in self._names[shift:] + self._names[:shift]:
            out = self._scratch / "shards"
            found = self.engines[name].extract(first, last, out)
            if "failed" in found:
                raise SystemExit(f"{name}: {found['failed']}")
            results[name] = found
            digests[name] = [
                hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.iterdir())
            ] + [found["rejected"]]
            shutil.rmtree(out)
        for name in self._names:
            if digests[name] != digests[self._names[0]]:
                raise SystemExit(f"{name} and {self._names[0]} gave different shards")
        return results

    def state(self) -> dict[str, dict[str, Any]]:
        """What each engine took so far beside its work: time to start, and memory."""
        return {
            name: {
                "start_seconds": round(engine.start_seconds, 2),
                "peak_megabytes": round(engine.peak_bytes / 1e6),
            }
            for name, engine in self.engines.items()
        }

    def rest(self) -> dict[str, dict[str, Any]]:
        """What each engine takes while it has nothing to do."""
        before = {name: engine.cpu_seconds() for name, engine in self.engines.items()}
        time.sleep(_IDLE_SECONDS)
        return {
            name: {
                "processes_at_rest": len(engine.processes()),
                "cpu_percent_at_rest": round(100 * (engine.cpu_seconds() - before[name]) / _IDLE_SECONDS, 1),
                "listens_at": engine.addresses(),
            }
            for name, engine in self.engines.items()
        }


def summed(turns: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Clips per second, CPU time and ratios of turns."""
    table: dict[str, Any] = {}
    for name in turns[0]:
        seconds = [turn[name]["wall_seconds"] for turn in turns]
        cpu = [turn[name]["cpu_seconds"] for turn in turns]
        clips = sum(turn[name]["clips"] + len(turn[name]["rejected"]) for turn in turns)
        table[name] = {
            "clips": clips,
            "seconds": round(sum(seconds), 1),
            "clips_per_second": round(clips / sum(seconds), 1),
            "cpu_milliseconds_a_clip": round(1000 * sum(cpu) / clips, 2),
            "load": [round(turn[name]["load"], 1) for turn in turns],
        }
        if BASE in turns[0]:
            base = [turn[BASE]["wall_seconds"] for turn in turns]
            base_cpu = [turn[BASE]["cpu_seconds"] for turn in turns]
            ratios = [theirs / ours for theirs, ours in zip(base, seconds, strict=True)]
            table[name][f"speed_to_{BASE}"] = {
                "of_sums": round(sum(base) / sum(seconds), 3),
                "median": round(median(ratios), 3),
                "lowest": round(min(ratios), 3),
                "highest": round(max(ratios), 3),
                "of_cpu": round(sum(base_cpu) / sum(cpu), 3),
            }
    return table


def contest(
    names: Sequence[str],
    clips: Sequence[bytes],
    count: int,
    rounds: int,
    workers: int,
    folder: Path,
    write: Callable[[dict[str, Any]], None],
) -> None:
    """Measures the engines on `count` clips: all at once and `rounds` times, or once in slices (0 rounds)."""
    print(f"{count} clips", flush=True)
    lock = write_clips(folder / f"clips-{count}", count, clips)
    turns: list[dict[str, dict[str, Any]]] = []
    with Contest(names, lock, workers, folder) as race:
        first = race.turn(0, 1)  # the first shard, which is also the warm-up
        parts = (
            [(0, race.chunks)] * rounds
            if rounds
            else [(at, min(at + _SLICE, race.chunks)) for at in range(0, race.chunks, _SLICE)]
        )
        rest = race.rest()
        for part in parts:
            turns.append(race.turn(*part))
            line = ", ".join(f"{name} {turns[-1][name]['wall_seconds']:.1f}" for name in names)
            print(f"  shards {part[0]} to {part[1]}: {line} s", flush=True)
            table, state = summed(turns), race.state()
            for name in names:
                shard = {"first_shard_seconds": round(first[name]["wall_seconds"], 2)}
                table[name] |= state[name] | rest[name] | shard
            write({"turns": f"{len(turns)} of {len(parts)}", "same_shards": True, "engines": table})
    shutil.rmtree(lock.parent)
    for name in names:
        print(f"  {name}: {table[name]['clips_per_second']} clips/s, {table[name]['peak_megabytes']} MB")


def main() -> None:
    """Measures part by part, prints and writes each part's figures as soon as they are there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=positive, default=1000, help="of small, and at most of drill")
    parser.add_argument("--rounds", type=positive, default=3, help="of small")
    parser.add_argument("--full", type=positive, default=26417, help="clips of full")
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"default: {RESULTS.name}")
    parser.add_argument("--scratch", type=Path, help="folder for clips and shards; 2 GB")
    options = parser.parse_args()
    names = list(options.engines)
    if importlib.util.find_spec("ray") is None and any(name.startswith("ray") for name in names):
        names = [name for name in names if not name.startswith("ray")]
        print('Ray is not installed: `pip install "ray[data]"` to measure it; going on without it')
    if not names:
        sys.exit("error: no engine is left to measure")
    folder = Path(tempfile.mkdtemp(prefix="erv-engines-", dir=options.scratch))
    before = Path.cwd()
    results = options.results.resolve()
    os.chdir(folder)
    try:
        clips = templates()
        for part in options.parts:
            write = partial(_write, results, part, options.workers, names)
            if part == "size":
                kinds = {"distributed": "distributed", "ray[data]": "ray"}
                brought = {kind: installed(kind) for kind, name in kinds.items() if _has(name)}
                write({"brought": brought, "lines_of_code": code_lines()})
            elif part == "drill":
                more = ["ray-bare"] if "ray-clips" in names else []
                lock = write_clips(folder / "drill", min(_DRILL, options.clips), clips)
                drill([*names, *more], lock, options.workers, folder, ROOT / "src", write)
            else:
                count, rounds = (options.clips, options.rounds) if part == "small" else (options.full, 0)
                contest(names, clips, count, rounds, options.workers, folder, write)
    except EngineError as error:
        sys.exit(f"error: {error}")
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def _write(results: Path, part: str, workers: int, names: Sequence[str], figures: dict[str, Any]) -> None:
    """Puts the figures of a part into the file of results, and leaves the other parts."""
    report = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    ray = {"ray": version("ray")} if any(name.startswith("ray") for name in names) else {}
    report[part] = {
        "command": " ".join(["python", "benchmarks/extract_engines.py", *sys.argv[1:]]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in LIBRARIES} | ray,
        "workers": workers,
        **figures,
    }
    results.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main()
