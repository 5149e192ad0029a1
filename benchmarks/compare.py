"""CPU seconds of `compare` on 12,000 clips of four policies, against the plain way of the same computation.

    python benchmarks/compare.py                  # make bench-compare
    python benchmarks/compare.py --clips 2000 --rounds 5

The plain way asks for the label space of each row, and computes every sum of a draw with a product of its
own. Both ways take turns on the same predictions, and their results must be equal to the last digit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks`

import erv.evaluate.compare as ours
import erv.evaluate.figures as figures
from benchmarks.workspace import positive
from erv.errors import EvaluationError
from erv.evaluate.evaluate import OVERALL
from erv.evaluate.outcomes import Term
from erv.labels import LabelSpace, label_space

RESULTS = Path(__file__).with_suffix(".json")
POLICIES = ("base", "sft", "r1_omni", "erv")
DRAWS = 2000


def predictions(policy: int, clips: int) -> list[dict[str, Any]]:
    """Rows of the predictions table with random answers; all policies see the same clips."""
    truth, answers = np.random.default_rng(0), np.random.default_rng(policy + 1)
    rows = []
    for number in range(clips):
        dataset = ("dfew", "mafw")[number % 2]
        names = LabelSpace.load(dataset).names
        label = names[truth.integers(len(names))]

        def said(share: float, names: tuple[str, ...] = names, label: str = label) -> str | None:
            if answers.random() < share:
                return label
            return None if answers.random() < 0.1 else names[answers.integers(len(names))]

        predicted, judged = said(0.6), said(0.5)
        rows.append(
            {
                "dataset": dataset,
                "clip_id": f"{number:05d}",
                "label": label,
                "completion": f"{predicted} {judged}",
                "predicted": predicted,
                "judged": judged,
            }
        )
    return rows


def plain_scopes(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """As `scope_rows`, asking the disk for the label space of each row, as `LabelSpace.load` once did."""
    find = label_space._find.__wrapped__
    mafw = LabelSpace.load("mafw")
    scopes: dict[str, list[dict[str, Any]]] = {OVERALL: []}
    for row in rows:
        scopes.setdefault(row["dataset"], []).append(dict(row))
        to_mafw = find(row["dataset"], str(Path.cwd())).to(mafw)
        said = {
            name: to_mafw(row[name]) or (row[name] and f"{row['dataset']}:{row[name]}")
            for name in ("predicted", "judged")
        }
        pooled = {**row, "label": to_mafw(row["label"]), **said}
        if pooled["label"] is None:
            raise EvaluationError(f"clip {row['clip_id']!r}: its label has no name in the MAFW space")
        scopes[OVERALL].append(pooled)
    return scopes


def plain_bootstrap(
    terms: Sequence[Mapping[Any, Term]], emotions: np.ndarray, scope: str, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `erv.evaluate.draws.bootstrap`, with a product per sum."""
    n, one_hot = len(emotions), (emotions[:, None] == np.arange(emotions.max() + 1)).astype(np.float32)
    stream = np.random.default_rng([seed, zlib.crc32(scope.encode())])

    def metrics(times: np.ndarray) -> np.ndarray:
        def summed(values: np.ndarray) -> np.ndarray:
            return (times @ values).astype(np.float64)

        found = []
        with np.errstate(invalid="ignore", divide="ignore"):
            for policy in terms:
                columns = [
                    summed(term.over) / (float(n) if term.of is None else summed(term.of))
                    for term in policy.values()
                ]
                right = next(iter(policy.values())).over
                recalls = summed(one_hot * right[:, None]) / summed(one_hot)
                found.append(np.stack([*columns, np.nanmean(recalls, axis=1)], axis=1))
        return np.stack(found, axis=1)

    values = metrics(np.ones((1, n), dtype=np.float32))[0]
    piece = max(1, 4_000_000 // n)
    draws = []
    for start in range(0, samples, piece):
        picks = stream.integers(0, n, size=(min(piece, samples - start), n))
        offsets = np.arange(len(picks))[:, None] * n
        times = np.bincount((picks + offsets).ravel(), minlength=len(picks) * n).reshape(len(picks), n)
        draws.append(metrics(times.astype(np.float32)))
    return values, np.concatenate(draws)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what the function returns."""
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def main() -> None:
    """Prints the seconds of both ways and their ratio; writes them to benchmarks/compare.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clips", type=positive, default=12_000)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = {name: predictions(number, arguments.clips) for number, name in enumerate(POLICIES)}

    def compared() -> Any:
        return ours.compare(rows, samples=DRAWS, confidence=0.95, seed=0)

    compared()  # what is loaded once doesn't count
    seconds: dict[str, list[float]] = {"plain": [], "compare": []}
    for _ in range(arguments.rounds):
        with (
            patch.object(ours, "scope_rows", plain_scopes),
            patch.object(figures, "bootstrap", plain_bootstrap),
        ):
            spent, expected = timed(compared)
        seconds["plain"].append(spent)
        spent, found = timed(compared)
        seconds["compare"].append(spent)
        if found != expected:
            sys.exit("the two ways differ")
    ratios = [plain / fast for plain, fast in zip(seconds["plain"], seconds["compare"], strict=True)]
    result = {
        "command": f"python benchmarks/compare.py --clips {arguments.clips} --rounds {arguments.rounds}",
        "cpu_seconds": {name: round(median(values), 3) for name, values in seconds.items()},
        "ratio": {"median": round(median(ratios), 2), "lowest": round(min(ratios), 2)},
    }
    arguments.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, value in result["cpu_seconds"].items():
        print(f"{name:<10}{value:6.2f} s of CPU for {arguments.clips} clips of {len(rows)} policies")
    print(f"{median(ratios):.2f} times faster ({min(ratios):.2f} to {max(ratios):.2f}); same result")


if __name__ == "__main__":
    main()
