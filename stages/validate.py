"""validate: judges a manifest and its media, fails when an expectation does.

Command (one per data set, from dvc.yaml):
    python -m stages.validate --dataset mafw --manifest data/manifest/mafw.parquet
        --verdict data/validation/mafw.json

Deviations from the paper:
1. The paper validates nothing; here clips that no decoder reads are known before a GPU is touched.
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path

from erv.data.manifest import read_manifest
from erv.data.sources import store_for
from erv.quality import probe_clips, require_success, validate
from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

logger = logging.getLogger(__name__)


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Probes the clips, checks the expectations, keeps verdict and Data Docs."""
    rows = read_manifest(arguments.manifest)
    probes = probe_clips(rows, store_for(row.uri for row in rows))
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder) / "data_docs"
        verdict = validate(arguments.dataset, rows, probes, settings.validate_, docs)
        run.log_artifact(docs, "data_docs")
    arguments.verdict.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.verdict.with_name(f".{arguments.verdict.name}.tmp")
    temporary.write_text(json.dumps(verdict, indent=2) + "\n", encoding="utf-8")
    temporary.replace(arguments.verdict)
    failed = [name for name, item in verdict["expectations"].items() if not item["success"]]
    run.log_metrics({"clips": float(verdict["clips"]), "expectations/failed": float(len(failed))})
    run.log_dataset(arguments.dataset, arguments.manifest, "source")
    logger.info(
        "%s: %d clips, missed expectations: %s", arguments.dataset, len(rows), ", ".join(failed) or "none"
    )
    require_success(verdict)


if __name__ == "__main__":
    run_stage("validate", main, Option("dataset"), Option("manifest", Path), Option("verdict", Path))
