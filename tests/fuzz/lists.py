"""Feeds mutated lists, tables, JSON and sheets to ingestion, and counts what becomes of them."""

from __future__ import annotations

import time
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from erv.errors import ErvError
from erv.ingest.ingest import Ingested
from erv.manifest import ClipRow
from tests.fuzz.list_mutations import LINES, OF_CSV, OF_IDS, SHEETS, WHOLE, mutate_sheet
from tests.fuzz.list_sets import ListSet, write_sets

_MEANT = ("label", "split", "caption", "completion", "media", "sha256")
_LONGEST = 6000  # of a message that names clips of several checks


@dataclass
class ListReport:
    """What became of the mutations.

    Attributes:
        mutations: number.
        outcomes: kind of list and of mutation -> what became of it -> how often.
        wrong: a sentence for each that passed with wrong rows, or ended otherwise than in one clear sentence.
        seconds: that it took.
    """

    mutations: int
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def fuzz_lists(folder: Path, count: int, seed: int) -> ListReport:
    """Runs mutations, the same for the same count and seed, over sets that it writes into an empty folder."""
    began = time.monotonic()
    sets = write_sets(folder)
    report = ListReport(count)
    for number in range(count):
        _one(sets[number % len(sets)], number, seed, report)
    report.seconds = time.monotonic() - began
    return report


def _one(chosen: ListSet, number: int, seed: int, report: ListReport) -> None:
    rng = np.random.default_rng([seed, number])
    path = chosen.root / chosen.lists[int(rng.integers(len(chosen.lists)))]
    before = path.read_bytes()
    must_fail = False
    if path.suffix == ".xlsx":
        kind = SHEETS[int(rng.integers(len(SHEETS)))]
        after, ids, must_fail = mutate_sheet(before, kind, rng)
        # Labels and splits come from the lists. A sheet can only change captions.
        touched = {chosen.as_id(text) if text.isdecimal() else text for text in ids}
    else:
        mutations = LINES | WHOLE | (OF_IDS if chosen.is_table_of_ids() else {})
        mutations |= OF_CSV if path.suffix == ".csv" else {}
        kind = list(mutations)[int(rng.integers(len(mutations)))]
        after = mutations[kind](before, rng)
        touched = touched_clips(chosen, before, after) if kind in LINES else set()
    label = f"{chosen.name}: {kind}"
    at = f"{label} in {path.name} (mutation {number}, seed {seed})"
    path.write_bytes(after)
    try:
        result = chosen.read()
    except ErvError as error:
        report.outcomes[label]["refused"] += 1
        text = str(error)
        if len(text) > _LONGEST or ("\n" in text and "checks failed:\n- " not in text):
            report.wrong.append(f"{at}: an unclear message: {text[:300]}")
        return
    except Exception as error:
        report.outcomes[label]["crashed"] += 1
        report.wrong.append(f"{at}: {type(error).__name__}: {str(error)[:300]}")
        return
    finally:
        path.write_bytes(before)
    report.outcomes[label]["read"] += 1
    if must_fail and after != before:
        report.wrong.append(f"{at}: a sheet with another label was accepted")
    report.wrong += [f"{at}: {fault}" for fault in faults(chosen, result, touched)]


def touched_clips(chosen: ListSet, before: bytes, after: bytes) -> set[str]:
    """Ids of the clips of which a list says something else now: any line that names them is not as it was."""
    old, new = _blocks(chosen, before), _blocks(chosen, after)
    return {clip for clip in old.keys() | new.keys() if old.get(clip) != new.get(clip)}


def _blocks(chosen: ListSet, content: bytes) -> dict[str, Counter[bytes]]:
    """By clip the lines that name it; a line without a clip belongs to the one before it."""
    blocks: list[tuple[set[str], bytes]] = []
    for line in content.split(b"\n"):
        ids = {chosen.as_id(match.decode()) for match in chosen.clip.findall(line)}
        if ids or not blocks:
            blocks.append((ids, line.strip(b" ,\r")))
        else:
            blocks[-1] = (blocks[-1][0], blocks[-1][1] + b"\n" + line.strip(b" \r"))
    found: dict[str, Counter[bytes]] = defaultdict(Counter)
    for ids, block in blocks:
        for clip in ids:
            found[clip][block.rstrip(b"\n]} ")] += 1
    return dict(found)


def faults(chosen: ListSet, result: Ingested, touched: set[str]) -> list[str]:
    """What a manifest says about untouched clips that the whole set does not, or loses without a word."""
    rows = {row.clip_id: row for row in result.rows}
    about_captions = [check for check in result.checks if check.name in ("text_encoding", "captions")]
    warned = {clip for check in about_captions if not check.success for clip in check.clips}
    said = {item.clip_id for item in result.excluded}
    said |= {path.rpartition(".")[0] for path in (*result.unlisted, *result.absent)}
    found = []
    for clip, meant in chosen.truth.items():
        if clip in touched:
            continue
        row = rows.get(clip)
        if row is None:
            if not any(clip == name or name.endswith(f"/{clip}") for name in said):
                found.append(f"clip {clip} is lost without a word")
            continue
        other = [name for name in _MEANT if _value(row, name) != _value(meant, name)]
        if other and not (other == ["caption"] and clip in warned):
            found.append(
                f"clip {clip}: {other[0]} is {_value(row, other[0])!r}, was {_value(meant, other[0])!r}"
            )
    found += [f"clip {clip} appeared" for clip in rows.keys() - chosen.truth.keys() - touched]
    return found[:3]


def _value(row: ClipRow, name: str) -> object:
    """A value of a row; how accents are composed does not change a text's meaning."""
    value = getattr(row, name)
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value


def show_lists(report: ListReport, seed: int) -> None:
    """Prints the figures."""
    total = sum(report.outcomes.values(), Counter[str]())
    words = ", ".join(f"{count} {outcome}" for outcome, count in total.most_common())
    print(f"{report.mutations} mutations of lists, seed {seed}: {words}; ingest {report.seconds:.0f} s")
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for label, outcomes in report.outcomes.items():
        by_kind[label.partition(": ")[2]].update(outcomes)
    for kind, outcomes in sorted(by_kind.items()):
        print(f"  {kind:22} " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()))
    print(f"read otherwise than the lists mean it, or without a clear sentence: {len(report.wrong)}")
    for fault in report.wrong:
        print(f"  {fault}")
