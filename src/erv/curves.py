"""The curves of a training as a table, which DVC tracks and draws.

The points are kept beside the checkpoints until the training has ended, so that one that was stopped and
resumed has whole curves. What depends on the machine's speed is left out: equal inputs give equal bytes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from erv.files import write_text

SERIES = (
    "reward",
    "kl",
    "entropy",
    "completion_length",
    "loss",
    "validation_loss",
)
REWARDS = "reward/"  # each reward of the variant by itself
COLUMNS = ("step", "series", "value")
_KEPT = "curves.jsonl"

OnMetrics = Callable[[dict[str, float], int], None]


class Curves:
    """Takes the metrics of each step, keeps those that are drawn, and passes everything on.

    Args:
        checkpoints: folder of the training's checkpoints; a resumed training goes on with the points in it.
        forward: takes the metrics of a step and the step.
    """

    def __init__(self, checkpoints: Path, forward: OnMetrics) -> None:
        self._path = checkpoints / _KEPT
        self._forward = forward
        self._points = _resume(self._path)  # (step, series) -> value

    def __call__(self, values: dict[str, float], step: int) -> None:
        """Notes a step; one that a resumed training repeats replaces what it was before."""
        points = {name: float(value) for name, value in values.items() if _is_drawn(name)}
        if points:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step, "points": points}) + "\n")
            self._points |= {(step, name): value for name, value in points.items()}
        self._forward(values, step)

    def write(self, path: Path) -> None:
        """Writes the table, see `write_curves`."""
        write_curves(self._points, path)


def write_curves(points: Mapping[tuple[int, str], float], path: Path) -> None:
    """Writes `step,series,value`, sorted by series and step, with six significant digits.

    Args:
        points: values by step and series; none for a training that took no step.
        path: the file to write.
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(COLUMNS)
    for step, name in sorted(points, key=lambda point: (point[1], point[0])):
        table.writerow([step, name, f"{points[step, name]:.6g}"])
    write_text(stream.getvalue(), path)


def _is_drawn(name: str) -> bool:
    return name in SERIES or name.startswith(REWARDS)


def _resume(path: Path) -> dict[tuple[int, str], float]:
    """The points that are kept; a line that a killed process left unfinished is dropped for good."""
    if not path.is_file():
        return {}
    whole = [
        line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    ]
    write_text("".join(whole), path)
    found: dict[tuple[int, str], float] = {}
    for entry in map(json.loads, whole):
        found |= {(int(entry["step"]), name): float(value) for name, value in entry["points"].items()}
    return found
