"""What the training does on a GPU, in one command: that it computes the same, how fast it is, what fits.

    make gpu-proof                                # or: python -m benchmarks.gpu_proof
    make gpu-proof --dry-run                      # what this machine lacks, part by part; runs nothing
    make gpu-proof PROOF="--only grpo decode"     # some parts; options as below
    make gpu-proof GPU_PYTHON=python3 PROOF="--wheels wheels/"
    python -m benchmarks.gpu_proof --device cpu --size tiny     # the parts that say something on a CPU

Each part (`benchmarks/gpu/parts.py`) runs in a process of its own, for 10 minutes at most, all of them for
25. Its figures are written to `benchmarks/gpu_proof.json` when it ends, with machine, versions and commit;
what other parts found earlier stays there. Nothing is downloaded and nothing is installed: the parts use this
Python's torch. Wheels in the folder of `--wheels` are unpacked into a temporary folder that goes first on the
parts' PYTHONPATH. Policies and checkpoints go to TMPDIR.

Policies have random weights of the released sizes, clips are noise. The exit code is 0 if every part passed
or needs a package of an extra that isn't here (and `--only` does not name it), otherwise 1; the last lines
say what failed or lacks what. `--dry-run` exits with 0 if every part that needs no extra could run. On a CPU
seconds mean nothing, and figures are written only where `--out` says.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu import record
from benchmarks.gpu.lacks import lacks, other_versions
from benchmarks.gpu.parts import BY_NAME, LIMIT, MINUTES, Part, chosen
from benchmarks.gpu.runner import ROOT, environment, run_part
from benchmarks.gpu.table import DOCUMENT, with_table
from benchmarks.gpu.wheels import WheelError, unpack
from benchmarks.workspace import positive

SIZES = ("tiny", "50m", "0.5b", "7b")  # of `benchmarks.grpo_sizes`, which imports torch


def probed(variables: Mapping[str, str]) -> dict[str, Any]:
    """What this machine has, seen by a process like those of the parts.

    Raises:
        SystemExit: that process failed.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.probe"]
    done = subprocess.run(command, cwd=ROOT, env=dict(variables), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {sys.executable} can't be asked what it has:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def show_lacks(parts: list[Part], found: Mapping[str, Any], device: str, size: str | None) -> int:
    """Prints what the machine has, and lacks for each part; 1 if a part that needs no extra can't run."""
    gpus = ", ".join(f"{gpu['name']} ({gpu['bytes'] / 1e9:.0f} GB)" for gpu in found["gpus"])
    print(
        f"Python {found['python']}, {found['system']}, {found['cores']} cores, {gpus or found['why_no_gpu']}"
    )
    for sentence in other_versions(found) if found["there"] else []:
        print(f"version: {sentence}")
    stopped = 0
    for part in parts:
        reasons = lacks(part, found, device, size or part.size)
        stopped += bool(reasons) and not part.optional
        kind = "would run" if not reasons else "lacks an extra" if part.optional else "can't run"
        print(f"{part.name}: {kind}{''.join(f'; {reason}' for reason in reasons)}")
    return 1 if stopped else 0


def prove(
    parts: list[Part], found: Mapping[str, Any], options: argparse.Namespace, variables: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Runs the parts, one after the other; returns their entries, which are also written at once."""
    until = time.monotonic() + 60 * options.minutes
    about = {
        "machine": record.machine(found, options.device),
        "versions": record.versions(found),
        "commit": record.commit(),
    }
    entries = {}
    for part in parts:
        size = options.size or part.size
        reasons = lacks(part, found, options.device, size)
        left = until - time.monotonic()
        entry: dict[str, Any] = {"seconds": 0.0, "headline": "", "figures": {}}
        if reasons:
            entry |= {"status": "lacks", "why": "; ".join(reasons)}
        elif left < 1:
            entry |= {"status": "stopped", "why": f"the {options.minutes} minutes of all parts were over"}
        else:
            limit = min(part.seconds, LIMIT, left)
            entry = run_part(part, size, options.device, options.rounds, limit, variables)
        entries[part.name] = {"size": size, **entry, **about}
        if options.out is not None:
            record.write(options.out, part.name, entries[part.name])
        told = entry["headline"] if entry["status"] == "passed" else entry["why"]
        print(f"{part.name}: {entry['status']} in {entry['seconds']:.0f} s: {told}", flush=True)
    return entries


def verdict(entries: Mapping[str, Mapping[str, Any]], *, asked: bool = False) -> int:
    """Prints what did not pass; 1 if it is more than an extra that isn't here and that nobody asked for."""
    wrong = 0
    for name, entry in entries.items():
        if entry["status"] == "passed":
            continue
        extra = entry["status"] == "lacks" and BY_NAME[name].optional
        wrong += asked or not extra
        print(f"{name} {entry['status']}{' (an extra)' if extra else ''}: {entry['why']}", file=sys.stderr)
    passed = sum(entry["status"] == "passed" for entry in entries.values())
    print(f"{passed} of {len(entries)} parts passed")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line; see the module for the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="PART", help=", ".join(BY_NAME))
    parser.add_argument("--dry-run", action="store_true", help="say what the machine lacks, and run nothing")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=SIZES, help="one size for all parts; by default each has its own")
    parser.add_argument("--rounds", type=positive, default=3, help="measured turns of each side")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that this machine lacks")
    parser.add_argument("--minutes", type=positive, default=MINUTES, help="of all parts together")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--table", action="store_true", help="only write the table in docs/training.md")
    options = parser.parse_args(arguments)
    if sys.version_info < (3, 11):  # noqa: UP036 - a GPU image's own Python, not one that pip chose
        print(
            f"error: Python {sys.version.split()[0]}; erv needs 3.11 or newer: set GPU_PYTHON",
            file=sys.stderr,
        )
        return 1
    if options.table:
        text = with_table(DOCUMENT.read_text(encoding="utf-8"), record.read(options.out or record.RESULTS))
        DOCUMENT.write_text(text, encoding="utf-8")
        return 0
    if options.out is None and options.device == "cuda":
        options.out = record.RESULTS
    parts = chosen(options.only, options.device, options.size)
    with tempfile.TemporaryDirectory(prefix="gpu-proof-wheels-") as folder:
        try:
            if options.wheels is not None:
                unpack(options.wheels, Path(folder))
        except WheelError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        variables = environment(Path(folder) if options.wheels is not None else None)
        found = probed(variables)
        if options.dry_run:
            return show_lacks(parts, found, options.device, options.size)
        if options.device == "cuda" and not found["gpus"]:
            print(
                f"error: there is no CUDA device here ({found['why_no_gpu']}); run make gpu-proof where there"
                " is one, with CUDA's torch; --dry-run names what else is missing",
                file=sys.stderr,
            )
            return 1
        return verdict(prove(parts, found, options, variables), asked=options.only is not None)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part under way is ended too
    sys.exit(main())
