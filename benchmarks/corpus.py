"""Time of the sample corpus with its base checkpoint: one after the other, and beside each other.

    python benchmarks/corpus.py                  # --size 150 --rounds 1
    python benchmarks/corpus.py --size demo      # as `make demo` makes it; five minutes on two idle cores

- in_order: all clips first, then the base checkpoint, by two calls of `write_sample`
- beside: one call; MAFW and DFEW are drawn while the base checkpoint is trained

The ways take turns, each in a process and an empty folder of its own. Wall time counts here, so the machine
has to be idle: where others wait for its cores, there is none to fill. The files of both are compared.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

from benchmarks.workspace import positive

WAYS = {
    "in_order": "write_sample(out, size=size, skip_base=True); write_sample(out, size=size)",
    "beside": "write_sample(out, size=size)",
}


def main() -> None:
    """Prints the seconds of both ways, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="150")
    parser.add_argument("--rounds", type=positive, default=1)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            for way in sorted(WAYS, reverse=bool(number % 2)):
                began = time.monotonic()
                _write(way, Path(scratch, way), options.size)
                seconds[way].append(time.monotonic() - began)
                print(f"round {number + 1}, {way}: {seconds[way][-1]:.1f} s", flush=True)
            _compare(*(Path(scratch, way) for way in WAYS))
    ratios = [a / b for a, b in zip(seconds["in_order"], seconds["beside"], strict=True)]
    print(f"{median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f}); all files are equal")


def _write(way: str, out: Path, size: str) -> None:
    code = (
        "import sys; from pathlib import Path; from erv.sample.sample import write_sample\n"
        f"out, size = Path(sys.argv[1]), sys.argv[2]; {WAYS[way]}"
    )
    subprocess.run([sys.executable, "-c", code, str(out), size], check=True)


def _compare(one: Path, other: Path) -> None:
    files = [sorted(p.relative_to(root) for p in root.rglob("*") if p.is_file()) for root in (one, other)]
    assert files[0] == files[1]
    _, different, failed = filecmp.cmpfiles(one, other, map(str, files[0]), shallow=False)
    assert not different, different
    assert not failed, failed


if __name__ == "__main__":
    main()
