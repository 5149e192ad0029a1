"""`erv serve` under load: waiting requests in batches against one at a time, and the first token's time.

    python -m benchmarks.serving                        # make bench-serving
    python -m benchmarks.serving --bundle models/candidate --rounds 3

Both sides are the real server with the same bundle, one with `--batch 8`, the other with `--batch 1`, and
take turns. 1, 8 and 32 clients send clips and read the answer as a stream; each asks again once it has its
answer. Then more clients come than the queue has places. Without `--bundle`, a policy with random weights
answers, see `serving_policy.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving_clients import Load, load
from benchmarks.serving_policy import SIZES, clip, write_bundle
from benchmarks.workspace import positive

RESULTS = Path(__file__).with_suffix(".json")
BATCH = 8
SIDES = {"one at a time": 1, "in batches": BATCH}
_START_SECONDS = 300.0
_FULL_QUEUE = 16  # places, for twice as many clients


def main() -> None:
    """Prints the figures and writes them to benchmarks/serving.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", type=Path, help="a bundle of yours; by default one is made")
    parser.add_argument("--size", choices=SIZES, default=SIZES[0], help="of the policy that is made")
    parser.add_argument("--tokens", type=positive, default=64, help="that it writes")
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 32])
    parser.add_argument("--each", type=positive, default=2, help="requests of a client")
    parser.add_argument("--rounds", type=positive, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results: dict[str, Any] = {"command": " ".join(["python -m benchmarks.serving", *sys.argv[1:]])}
        bundle = arguments.bundle
        if bundle is None:
            bundle = Path(folder) / "bundle"
            weights = write_bundle(bundle, arguments.size, arguments.tokens)
            results["policy"] = {"language_model_weights": weights, "tokens": arguments.tokens}
        results |= measured(bundle, clip(), arguments.clients, arguments.each, arguments.rounds)
    arguments.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


def measured(bundle: Path, content: bytes, clients: Sequence[int], each: int, rounds: int) -> dict[str, Any]:
    """All figures about a bundle."""
    loads: dict[tuple[str, int], list[Load]] = {}
    with serving(bundle, "--batch", "1") as single, serving(bundle, "--batch", str(BATCH)) as batched:
        addresses = dict(zip(SIDES, (single, batched), strict=True))
        for address in addresses.values():
            load(address, content, 1, 1)  # warm
        for _ in range(rounds):
            for count in clients:
                for side, address in addresses.items():
                    loads.setdefault((side, count), []).append(load(address, content, count, each))
    with serving(bundle, "--batch", str(BATCH), "--queue", str(_FULL_QUEUE)) as full:
        crowd = load(full, content, 2 * (_FULL_QUEUE + BATCH), 1)
    return {
        "first_token": _first_token(
            [one for (_, count), found in loads.items() if count == 1 for one in found]
        ),
        "throughput": {str(count): _throughput(loads, count) for count in clients},
        "full_queue": {
            "places": _FULL_QUEUE,
            "clients": len(crowd.asked),
            "answered": len(crowd.answered),
            "refused": sum(one.status == 429 for one in crowd.asked),
            "errors": sum(one.failed for one in crowd.asked),
            "most_waiting": crowd.most_waiting,
        },
    }


def _first_token(loads: Sequence[Load]) -> dict[str, float]:
    """Of a client that is alone."""
    answered = [one for found in loads for one in found.answered if one.first is not None]
    if not answered:
        return {}
    first, whole = (median(getattr(one, name) for one in answered) for name in ("first", "whole"))
    return {
        "median_seconds": round(first, 3),
        "whole_answer_median_seconds": round(whole, 3),
        "share_of_the_whole": round(first / whole, 3),
    }


def _throughput(loads: dict[tuple[str, int], list[Load]], count: int) -> dict[str, Any]:
    """Answers per second of both sides, the medians of the rounds."""
    rates = {side: [len(one.answered) / one.seconds for one in loads[side, count]] for side in SIDES}
    ratios = [two / one for one, two in zip(*rates.values(), strict=True)]
    return {
        "answers_per_second": {side: round(median(found), 3) for side, found in rates.items()},
        "times_faster": round(median(ratios), 2),
        "errors": sum(one.failed for side in SIDES for found in loads[side, count] for one in found.asked),
        "most_waiting": max(one.most_waiting for side in SIDES for one in loads[side, count]),
    }


@contextmanager
def serving(bundle: Path, *options: str) -> Iterator[str]:
    """Runs `erv serve` until the end of the block; yields its address."""
    code = "from erv.cli import main; main()"
    options = ("--port", "0", "--device", "cpu", "--queue", "64", "--seconds", "1200", *options)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", code, "serve", "--bundle", str(bundle.resolve()), *options],
                cwd=folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=stream,
                stderr=stream,
            )
        try:
            end = time.monotonic() + _START_SECONDS
            while not (found := re.search(r"http://\S+:\d+", log.read_text())):
                if process.poll() is not None or time.monotonic() > end:
                    sys.exit(f"error: the server did not start: {log.read_text()}")
                time.sleep(0.1)
            yield found[0]
        finally:
            process.terminate()
            process.wait(60)


if __name__ == "__main__":
    main()
