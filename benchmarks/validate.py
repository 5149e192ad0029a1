"""CPU milliseconds of `validate`'s look into a clip, quickly and in full.

    python benchmarks/validate.py                 # make bench-validate
    python benchmarks/validate.py --clips 4 --rounds 10
    python benchmarks/validate.py --profile       # how the quick look splits; writes nothing

The clips are those of `benchmarks/extract.py`: H.264 and AAC, 640x360, 3 s, one key frame. `full` decodes
every picture behind the last key frame, as earlier versions did for every clip; `quick` is what a bright clip
without a fault gets today. Both take turns on each clip, in one process, and must agree on all but the
brightness, whose largest difference is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

import erv.validate.video_probe as video_probe
from benchmarks.extract import make_clip
from benchmarks.validate_split import split
from benchmarks.workspace import positive
from erv.media.header import read_header
from erv.validate.probing import _load_prober

RESULTS = Path(__file__).with_suffix(".json")


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """CPU milliseconds, and what the function returns."""
    began = time.process_time()
    result = function(*arguments)
    return 1000 * (time.process_time() - began), result


def fully(path: Path) -> Any:
    """Probes a clip with the full look alone."""
    with patch.object(video_probe, "_quick_look", lambda *_: None):
        return video_probe.probe_video(path)


def show_split(paths: list[Path], rounds: int) -> None:
    """Prints the milliseconds and the share of each part."""
    parts, whole, hashed = split(paths, rounds)
    for name, value in parts.items():
        print(f"{name:<36}{value:7.2f} ms of CPU a clip {100 * value / whole:4.0f}%")
    print(f"{'all':<36}{whole:7.2f} ms")
    print(f"{'hash of the file, before the look':<36}{hashed:7.2f} ms")


def main() -> None:
    """Prints the milliseconds of both ways and their ratio; writes them to benchmarks/validate.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=positive, default=8)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--profile", action="store_true", help="show how the quick look splits into parts")
    arguments = parser.parse_args()
    names = ("probe, full", "probe, quick", "pictures, full", "pictures, quick", "packets and sound")
    times: dict[str, list[float]] = {name: [] for name in names}
    difference = 0.0
    _load_prober()
    with tempfile.TemporaryDirectory(prefix="erv-bench-") as scratch:
        paths = [Path(scratch) / f"{number}.mp4" for number in range(arguments.clips)]
        for number, path in enumerate(paths):
            path.write_bytes(make_clip(number))
            fully(path)
        if arguments.profile:
            show_split(paths, arguments.rounds)
            return
        for _ in range(arguments.rounds):
            spent = dict.fromkeys(names, 0.0)
            for path in paths:
                took, full = timed(fully, path)
                spent["probe, full"] += took
                took, quick = timed(video_probe.probe_video, path)
                spent["probe, quick"] += took
                header = read_header(path)
                took, (packets, _) = timed(video_probe._read_packets, path, header)
                spent["packets and sound"] += took
                spent["pictures, full"] += timed(video_probe._look, path, header, packets)[0]
                spent["pictures, quick"] += timed(video_probe._quick_look, path, header, packets)[0]
                difference = max(difference, abs(full.brightness - quick.brightness))
                if asdict(full) | {"brightness": 0} != asdict(quick) | {"brightness": 0}:
                    sys.exit("the two ways differ")
            for name, value in spent.items():
                times[name].append(value / len(paths))
    ratios = {
        part: [
            full / quick for full, quick in zip(times[f"{part}, full"], times[f"{part}, quick"], strict=True)
        ]
        for part in ("probe", "pictures")
    }
    result = {
        "command": f"python benchmarks/validate.py --clips {arguments.clips} --rounds {arguments.rounds}",
        "cpu_milliseconds_a_clip": {name: round(median(values), 2) for name, values in times.items()},
        "ratios": {part: round(median(values), 2) for part, values in ratios.items()},
        "brightness_differs_by_at_most": round(difference, 2),
    }
    arguments.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, value in times.items():
        print(f"{name:<20}{median(value):7.2f} ms of CPU a clip")
    for part, values in ratios.items():
        print(f"{part}: {median(values):.2f} times faster ({min(values):.2f} to {max(values):.2f})")
    print(f"brightness differs by at most {difference:.2f} of 255")


if __name__ == "__main__":
    main()
