"""extract: decodes the clips of a manifest into shards of frames and audio.

Command (one per data set, from dvc.yaml):
    python -m stages.extract --dataset mafw --manifest data/manifest/mafw.parquet
        --checks data/checks/mafw.json --verdict data/validation/mafw.json
        --lock data/sources/mafw.lock.json --shards data/shards/mafw
        --quarantine data/quarantine/mafw.parquet --plot data/plots/mafw/quarantine.csv

Deviations from the paper:
1. Geometry is one parameter for training and inference; the released code pads in training and stretches in
inference. 2. A clip without sound is quarantined, marked or refused; the released code uses ten seconds of
zeros. 3. A clip that can't be decoded is left out and listed with the reason; the run goes on. 4. A frame
folder with too few frames repeats some; the released code appends black ones (`extract.short_folders`).
"""

from __future__ import annotations

import logging
from pathlib import Path

from erv.errors import DataError
from erv.extract.extract import extract, quarantine_reasons
from erv.figures.pages import quarantine_page
from erv.files import read_document
from erv.manifest import read_manifest
from erv.plots.tables import write_quarantine
from erv.settings import Settings
from erv.sources import Lock, store_for
from erv.stage import Arguments, Option, StageRun, run_stage

logger = logging.getLogger(__name__)


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Decodes the clips, writes shards and quarantine, and checks that no clip was lost."""
    verdict = read_document(arguments.verdict, "validate")
    if not verdict["success"]:
        raise DataError(f"{arguments.verdict}: the manifest did not pass validation; repair the source first")
    lock = Lock.load(arguments.lock)
    result = extract(
        read_manifest(arguments.manifest),
        lock,
        store_for([lock.uri]),
        settings.extract,
        arguments.shards,
        arguments.quarantine,
        workers=settings.machine.extract.workers,
        dask=settings.machine.extract.dask,
        excluded=read_document(arguments.checks, "ingest")["excluded"],
    )
    write_quarantine(quarantine_reasons(arguments.quarantine), arguments.plot)
    run.log_metrics(
        {
            "clips": float(result.clips),
            "extracted": float(result.extracted),
            "quarantined": float(result.quarantined),
            "excluded": float(result.excluded),
        }
    )
    run.log_dataset(arguments.dataset, arguments.manifest, "source")
    run.log_artifact(arguments.quarantine)
    run.log_text(quarantine_page(arguments.plot), "plots/quarantine.html")
    logger.info(
        "%s: %d clips = %d extracted + %d quarantined; %d excluded by ingest",
        arguments.dataset,
        result.clips,
        result.extracted,
        result.quarantined,
        result.excluded,
    )


if __name__ == "__main__":
    run_stage(
        "extract",
        main,
        Option("dataset"),
        Option("manifest", Path),
        Option("checks", Path),
        Option("verdict", Path),
        Option("lock", Path),
        Option("shards", Path),
        Option("quarantine", Path),
        Option("plot", Path),
    )
