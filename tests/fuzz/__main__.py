"""`python -m tests.fuzz --mutations 2000 --seed 0`: feeds broken clips to validate and extract, broken
lists to ingest, and broken workspaces to what reads them."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.lists import fuzz_lists, show_lists
from tests.fuzz.run import Report, fuzz
from tests.fuzz.state import fuzz_state


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--lists", type=int, default=2500, help="mutations of lists, tables and sheets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state-mutations", type=int, default=1200, help="of dvc.lock, params.yaml, ...")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="erv-fuzz-") as folder, _quiet():
        report = fuzz(Path(folder), arguments.mutations, arguments.seed, workers=arguments.workers)
    show(report, arguments.seed)
    with tempfile.TemporaryDirectory(prefix="erv-fuzz-") as folder:
        state = fuzz_state(Path(folder), arguments.state_mutations, arguments.seed, commands=24)
    print(f"{arguments.state_mutations} mutations of a workspace's files, seed {arguments.seed}:")
    print("\n".join(state.lines()))
    with tempfile.TemporaryDirectory(prefix="erv-fuzz-") as folder:
        lists = fuzz_lists(Path(folder), arguments.lists, arguments.seed)
    show_lists(lists, arguments.seed)
    sys.exit(1 if state.faults or lists.wrong else 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Decoders write on standard error what they think of each file; that goes to nowhere."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def show(report: Report, seed: int) -> None:
    """Prints the figures."""
    result = report.result
    print(
        f"{report.mutations} mutations, seed {seed}:"
        f" {result.extracted} extracted, {result.quarantined} quarantined"
    )
    for kind, outcomes in sorted(report.by_kind.items()):
        words = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        print(f"  {kind:22} {words}")
    print("worker processes lost: " + ", ".join(f"{count} {what}" for what, count in report.survived.items()))
    print("probing of validate: " + ", ".join(f"{n} {fault}" for fault, n in report.faults.most_common()))
    for what, count in report.disagreements.items():
        print(f"  {count} {what}")
    print(", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in report.seconds.items()))


if __name__ == "__main__":
    main()
