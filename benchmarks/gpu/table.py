"""The table of what ran on a GPU in `docs/training.md`, made from the committed figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PARTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN = "<!-- From benchmarks/gpu_proof.json, by `python -m benchmarks.gpu_proof --table`. -->"
END = "<!-- End of the table of the GPU proof. -->"


def table(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per part of the proof; figures of a CPU don't count.

    Args:
        entries: the parts of `gpu_proof.json` by name.
    """
    lines = ["| part | shows | on a GPU |", "|---|---|---|"]
    for part in PARTS:
        size = "" if part.name.endswith(part.size) or part.name == "vectors" else f" ({part.size})"
        lines.append(f"| `{part.name}`{size} | {part.shows} | {_said(entries.get(part.name))} |")
    return "\n".join(lines)


def _said(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["machine"]["device"] == "cpu":
        return "not measured yet"
    where = (
        f"{entry['machine']['device']}, torch {entry['versions'].get('torch', '?')}, {entry['commit'][:8]}"
    )
    if entry["status"] == "passed":
        said = entry["headline"] or "passed"
    else:
        said = f"**{entry['status']}**: {entry['why'] or 'see gpu_proof.json'}"
    return f"{said}; {where}".replace("|", "\\|").replace("\n", " ")


def with_table(text: str, entries: Mapping[str, Mapping[str, Any]]) -> str:
    """A document with the table between its markers replaced.

    Raises:
        ValueError: the markers aren't there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"the document needs these two lines, the table goes between them: {BEGIN} and {END}"
        )
    return f"{before}{BEGIN}\n\n{table(entries)}\n\n{END}{after}"
