"""Answers the demo's test clips as evaluate does, against one clip at a time: seconds of CPU and the answers.

    python -m benchmarks.evaluate                       # make bench-evaluate, after make demo
    python -m benchmarks.evaluate --workspace FOLDER --clips 24 --rounds 3

One clip at a time is the plain way: towers, prompt and every token for a single clip. The sides take turns on
the same clips in the same process, with loaded policies, and must say the same. `shared` is evaluate for the
next policy of a run: the towers' features are kept, so no clip is read or encoded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.workspace import demanded, positive
from erv.completions.answering import Answering, Task
from erv.completions.kept import KeptPieces
from erv.completions.pieces import Asked, Decoding, plan
from erv.determinism import seed_everything
from erv.files import sha256_of
from erv.manifest import read_manifest
from erv.policies import load_policy
from erv.policies.common.generate import generate_completions
from erv.settings import load_settings
from erv.shards import ShardReader

RESULTS = Path(__file__).with_suffix(".json")


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what the function returns."""
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def main() -> None:
    """Prints the seconds of each side and the ratios; writes them to benchmarks/evaluate.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workspace", type=Path, default=Path(), help="after `make demo`")
    parser.add_argument("--dataset", default="mafw")
    parser.add_argument("--policy", default="erv")
    parser.add_argument("--clips", type=positive, default=None, help="only the first ones; all by default")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    demanded(
        arguments.workspace,
        "params.yaml",
        f"models/policy/{arguments.policy}",
        "data/shards",
        "data/manifest",
    )
    settings = load_settings(arguments.workspace / "params.yaml")
    seed_everything(settings.seed, settings.runtime.threads)
    shards = arguments.workspace / "data/shards" / arguments.dataset
    folder = arguments.workspace / "models/policy" / arguments.policy
    reader = ShardReader(shards)
    rows = read_manifest(arguments.workspace / f"data/manifest/{arguments.dataset}.parquet")
    tested = [row.clip_id for row in rows if row.split == "test" and row.clip_id in reader]
    clip_ids = tested[: arguments.clips]
    decoding = Decoding(settings.evaluate.batch_size, settings.evaluate.max_new_tokens)
    pieces = plan([Asked(name, sound=name not in reader.silent) for name in clip_ids], decoding.batch_size)
    policy = load_policy(folder)
    digest = sha256_of(shards)

    def plainly() -> dict[str, str]:
        return generate_completions(
            policy,
            (reader.get(clip_id) for clip_id in clip_ids),
            batch_size=1,
            max_new_tokens=decoding.max_new_tokens,
            temperature=0.0,
            seed=0,
        )

    sides = ("one at a time", "evaluate", "shared")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        spent, expected = timed(plainly)
        seconds["one at a time"].append(spent)
        with tempfile.TemporaryDirectory() as scratch:
            for side in ("evaluate", "shared"):
                task = Task(
                    dataset=arguments.dataset,
                    policy=folder,
                    family=None,
                    shards=shards,
                    shards_digest=digest,
                    decoding=decoding,
                    device="cpu",
                    dtype="float32",
                    threads=settings.runtime.threads,
                    kept=KeptPieces(side, arguments.dataset, "key", Path(scratch) / "pieces"),
                    feature_bytes=10**10,
                    features=Path(scratch) / "features",
                )
                answering = Answering(task)
                answering.load()
                spent, answered = timed(lambda answer=answering: [answer(piece) for piece in pieces])
                seconds[side].append(spent)
                if {item.clip_id: item.completion for part in answered for item in part} != expected:
                    sys.exit(f"{side} says something else than one clip at a time")
    plain = seconds["one at a time"]
    result = {
        "command": "python -m benchmarks.evaluate" + f" --clips {len(clip_ids)} --rounds {arguments.rounds}",
        "clips": len(clip_ids),
        "cpu_seconds": {name: round(median(values), 3) for name, values in seconds.items()},
        "times_faster": {
            name: {
                "median": round(median(a / b for a, b in zip(plain, seconds[name], strict=True)), 2),
                "lowest": round(min(a / b for a, b in zip(plain, seconds[name], strict=True)), 2),
            }
            for name in sides[1:]
        },
    }
    arguments.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
