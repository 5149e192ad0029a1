"""ingest: turns a pinned source into the manifest of a data set.

Command (one per data set, from dvc.yaml):
    python -m stages.ingest --dataset mafw --lock data/sources/mafw.lock.json
        --manifest data/manifest/mafw.parquet --cues data/cues/mafw.parquet
        --checks data/checks/mafw.json --plot data/plots/mafw/class_balance.csv

Deviations from the paper:
1. A validation split is cut per label from the training fold, by a hash of the clip id; the data sets have
none.
2. Labels, folds and counts are checked against the official sheets and the published figures; the released
code trusts its JSON files.
"""

from __future__ import annotations

import logging
from pathlib import Path

from erv.cues import write_cues
from erv.figures.pages import class_balance_page
from erv.files import write_document
from erv.ingest.cues import source_cues
from erv.ingest.ingest import ingest, require_current
from erv.labels import LabelSpace
from erv.manifest import write_manifest
from erv.plots.tables import write_class_balance
from erv.settings import Settings
from erv.sources import Lock, store_for
from erv.stage import Arguments, Option, StageRun, run_stage

logger = logging.getLogger(__name__)


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Reads the official files; writes one row per clip, the checks and the class balance."""
    lock = Lock.load(arguments.lock)
    require_current(lock, settings.sources.model_dump()[arguments.dataset])
    store = store_for([lock.uri])
    result = ingest(arguments.dataset, lock, store, settings.ingest, seed=settings.seed)
    write_manifest(result.rows, arguments.manifest)
    write_cues(source_cues(lock, store), arguments.cues)
    write_document(result.checks_document(), arguments.checks)
    labels = LabelSpace.load(arguments.dataset).names
    write_class_balance(result.folds, settings.ingest.fold, result.rows, labels, arguments.plot)
    run.log_metrics(result.counts())
    run.log_dataset(arguments.dataset, arguments.manifest, "source")
    run.log_artifact(arguments.checks)
    run.log_text(class_balance_page(arguments.plot), "plots/class_balance.html")
    for line in result.warnings():
        logger.warning("%s: %s", arguments.dataset, line)
    logger.info(
        "%s: %s",
        arguments.dataset,
        ", ".join(f"{name} {count:.0f}" for name, count in result.counts().items()),
    )


if __name__ == "__main__":
    run_stage(
        "ingest",
        main,
        Option("dataset"),
        Option("lock", Path),
        Option("manifest", Path),
        Option("cues", Path),
        Option("checks", Path),
        Option("plot", Path),
    )
