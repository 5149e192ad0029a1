"""Milliseconds to read a clip from shards, in order and shuffled, for several sizes of row groups.

    python benchmarks/shards.py                   # make bench-shards
    python benchmarks/shards.py --clips 320 --size 64 --rounds 5

Every way writes the same clips (8 frames of photographs, 3 s of sound) with the product's writer. `16` are
the row groups of earlier versions, `ours` those of today, the others for comparison. A reader keeps 2 row
groups, so that few of the shuffled reads find theirs in memory, as in a data set that is larger than the
cache. The ways take turns; CPU milliseconds, medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

import erv.shards
from benchmarks.workspace import positive
from erv.shards import Clip, ShardReader, ShardWriter

RESULTS = Path(__file__).with_suffix(".json")
OURS = (erv.shards.ROWS_PER_GROUP, erv.shards.BYTES_PER_GROUP)
# Clips and bytes of a row group at most.
WAYS = {"16": (16, 32 * 2**20), "4": (4, 2**40), "1": (1, 2**40), "ours": OURS}
PER_SHARD, CACHED = 128, 2


def make_clip(number: int, size: int) -> Clip:
    """A clip of cuts from photographs and a noisy tone, different for each number."""
    rng = np.random.default_rng(number)
    photo = load_sample_images().images[number % 2]
    frames = []
    for _ in range(8):
        y, x = (int(rng.integers(0, side - size)) for side in photo.shape[:2])
        frames.append(photo[y : y + size, x : x + size])
    sound = 8000 * np.sin(np.arange(48_000) * 0.1) + rng.normal(0, 300, 48_000)
    return Clip(f"{number:05d}", np.stack(frames), sound.astype(np.int16), 16_000)


def write(folder: Path, clips: list[Clip], group: tuple[int, int]) -> None:
    """Writes shards with such row groups."""
    erv.shards.ROWS_PER_GROUP, erv.shards.BYTES_PER_GROUP = group
    try:
        with ShardWriter(folder, PER_SHARD) as writer:
            for clip in clips:
                writer.add(clip)
    finally:
        erv.shards.ROWS_PER_GROUP, erv.shards.BYTES_PER_GROUP = OURS


def read(folder: Path, order: list[str]) -> tuple[float, float]:
    """CPU milliseconds a clip to open the shards, and to read the clips in this order."""
    began = time.process_time()
    reader = ShardReader(folder, CACHED)
    opened = time.process_time()
    for clip_id in order:
        reader.get(clip_id)
    done = time.process_time()
    return 1000 * (opened - began) / len(order), 1000 * (done - opened) / len(order)


def main() -> None:
    """Prints the times of all ways and the ratio; writes them to benchmarks/shards.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=positive, default=160)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument(
        "--results", type=Path, help=f"default: {RESULTS.name}, but only for the default size"
    )
    arguments = parser.parse_args()
    if arguments.results is None and arguments.size == parser.get_default("size"):
        arguments.results = RESULTS
    clips = [make_clip(number, arguments.size) for number in range(arguments.clips)]
    ordered = [clip.clip_id for clip in clips]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    times: dict[str, dict[str, list[float]]] = {
        way: {"open": [], "in order": [], "shuffled": []} for way in WAYS
    }
    with tempfile.TemporaryDirectory(prefix="erv-bench-") as scratch:
        folders = {way: Path(scratch) / way for way in WAYS}
        for way, group in WAYS.items():
            write(folders[way], clips, group)
        sizes = {
            way: sum(path.stat().st_size for path in folder.iterdir()) for way, folder in folders.items()
        }
        for _ in range(arguments.rounds):
            for way, folder in folders.items():
                opened, spent = read(folder, ordered)
                times[way]["open"].append(opened)
                times[way]["in order"].append(spent)
                times[way]["shuffled"].append(read(folder, shuffled)[1])
    ratios = [old / new for old, new in zip(times["16"]["shuffled"], times["ours"]["shuffled"], strict=True)]
    result: dict[str, Any] = {
        "command": f"python benchmarks/shards.py --clips {arguments.clips} --size {arguments.size}"
        f" --rounds {arguments.rounds}",
        "milliseconds_a_clip": {
            way: {name: round(median(values), 3) for name, values in parts.items()}
            for way, parts in times.items()
        },
        "size_to_groups_of_16": {way: round(size / sizes["16"], 4) for way, size in sizes.items()},
        "shuffled_ratio": round(median(ratios), 2),
    }
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for way, parts in result["milliseconds_a_clip"].items():
        line = ", ".join(f"{name} {value:6.2f}" for name, value in parts.items())
        print(f"groups {way:<5} ms a clip: {line}; size {100 * result['size_to_groups_of_16'][way]:.1f}%")
    print(f"shuffled reads {median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
