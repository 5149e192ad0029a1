"""ingest: turns a pinned source into the manifest of a data set.

Command (one per data set, from dvc.yaml):
    python -m stages.ingest --dataset mafw --lock data/sources/mafw.lock.json
        --manifest data/manifest/mafw.parquet

Deviations from the paper:
1. A validation split is cut from the training fold by a hash of the clip id; the data sets have none.
2. Labels are checked against the ids of the official sheets; the released code trusts its JSON files.
"""

from __future__ import annotations

import logging
from pathlib import Path

from erv.data.ingest import ingest
from erv.data.manifest import write_manifest
from erv.data.sources import Lock, store_for
from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

logger = logging.getLogger(__name__)


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Reads the official files, writes one row per clip."""
    lock = Lock.load(arguments.lock)
    result = ingest(
        arguments.dataset,
        lock,
        store_for([lock.uri]),
        fold=settings.ingest.fold,
        validation_share=settings.ingest.validation_share,
        seed=settings.seed,
    )
    write_manifest(result.rows, arguments.manifest)
    run.log_metrics(result.counts())
    run.log_dataset(arguments.dataset, arguments.manifest, "source")
    logger.info(
        "%s: %s",
        arguments.dataset,
        ", ".join(f"{name} {count:.0f}" for name, count in result.counts().items()),
    )


if __name__ == "__main__":
    run_stage("ingest", main, Option("dataset"), Option("lock", Path), Option("manifest", Path))
