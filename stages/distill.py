"""distill: every sentence of the reasoning set's explanations, labelled by a teacher, for the verifier.

Command: see `distill` in dvc.yaml. Deviations from the paper:

1. The teacher `reference` reads the labels that came with the reasoning set; the paper asks a large language
   model.
2. Sentences are held out by a hash of their text, so that no text is in two splits.
"""

from collections import Counter
from pathlib import Path

from erv.data.manifest import read_manifest
from erv.data.sources import Lock, store_for
from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage
from erv.verifier.distill import REFERENCE_FILE, distill_reference, write_sentences


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Labels the sentences and writes the table."""
    lock = Lock.load(arguments.reasoning)
    store = store_for([lock.uri])
    reference = lock.read(store, REFERENCE_FILE).decode("utf-8")
    rows = read_manifest(arguments.manifest)
    table = distill_reference(rows, reference, settings.distill, settings.seed)
    write_sentences(table, arguments.sentences)
    run.log_dataset("reasoning", arguments.manifest, "training")
    counts = Counter(table.column("split").to_pylist())
    run.log_metrics({f"sentences/{split}": float(count) for split, count in sorted(counts.items())})


if __name__ == "__main__":
    run_stage(
        "distill",
        main,
        Option("manifest", Path),
        Option("reasoning", Path),
        Option("sentences", Path),
    )
