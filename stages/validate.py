"""validate: examines a manifest and its media, and fails if an expectation is not met.

Command (one per data set, from dvc.yaml):
    python -m stages.validate --dataset mafw --manifest data/manifest/mafw.parquet
        --checks data/checks/mafw.json --lock data/sources/mafw.lock.json
        --verdict data/validation/mafw.json --plot data/plots/mafw/durations.csv

Deviations from the paper:
1. The paper validates nothing; here, clips that no decoder reads, that are black or silent, or that are in
two splits are found before a GPU is used.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from erv.figures.pages import durations_page
from erv.files import read_document, write_document
from erv.manifest import read_manifest
from erv.plots.tables import write_durations
from erv.settings import Settings
from erv.sources import Lock, store_for
from erv.stage import Arguments, Option, StageRun, run_stage
from erv.tracking.names import DATA_DOCS_TAG
from erv.validate.probing import probe_clips
from erv.validate.validate import missed, require_success, validate

logger = logging.getLogger("stages.validate")

DOCS_FOLDER = "data_docs"


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Probes the clips, checks the expectations, and stores verdict, Data Docs and durations."""
    rows = read_manifest(arguments.manifest)
    checks = read_document(arguments.checks, "ingest")
    lock = Lock.load(arguments.lock)
    workers = settings.machine.validate_.workers
    probes = probe_clips(rows, lock, store_for([lock.uri]), settings.validate_, workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / f"{arguments.dataset}.html"
        verdict = validate(arguments.dataset, rows, probes, settings.validate_, checks, docs)
        run.log_artifact(docs, DOCS_FOLDER)
    run.set_tags({DATA_DOCS_TAG: f"{DOCS_FOLDER}/{arguments.dataset}.html"})
    write_durations(probes.values(), settings.validate_.max_seconds, arguments.plot)
    run.log_text(durations_page(arguments.plot), "plots/durations.html")
    write_document(verdict, arguments.verdict)
    failed = [item for item in verdict["expectations"].values() if not item["success"]]
    run.log_metrics({"clips": float(verdict["clips"]), "expectations/failed": float(len(failed))})
    run.log_dataset(arguments.dataset, arguments.manifest, "source")
    for text in missed(verdict, warnings=True):
        logger.warning("%s: %s", arguments.dataset, text)
    total = len(verdict["expectations"])
    logger.info(
        "%s: %d clips meet %d of %d expectations", arguments.dataset, len(rows), total - len(failed), total
    )
    require_success(verdict)


if __name__ == "__main__":
    run_stage(
        "validate",
        main,
        Option("dataset"),
        Option("manifest", Path),
        Option("checks", Path),
        Option("lock", Path),
        Option("verdict", Path),
        Option("plot", Path),
    )
