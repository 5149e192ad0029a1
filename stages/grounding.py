"""grounding: which claims of the explanations are true of their clips, and which cues they mention.

Command: see `grounding` in dvc.yaml. The paper measures neither.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.grounding.cues import CueRecord

logger = logging.getLogger("stages.grounding")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Checks the explanations of all policies; writes the claims and the measured values."""
    from erv.evaluate.compare import check_paired
    from erv.evaluate.evaluate import read_predictions, write_json
    from erv.grounding.grounding import ground, metric_values, summary, write_claims
    from erv.manifest import read_manifests

    predictions = {
        policy: read_predictions(arguments.evaluations / policy / "predictions.parquet")
        for policy in settings.compare.policies
    }
    check_paired(predictions)
    datasets = sorted({row["dataset"] for rows in predictions.values() for row in rows})
    manifests = read_manifests(arguments.manifests, datasets)
    captions = {(name, row.clip_id): row.caption for name, rows in manifests.items() for row in rows}
    judge = None
    if settings.grounding.judge is not None:
        from erv.grounding.captions import CaptionChecker

        judge = CaptionChecker(settings.grounding.judge)
    result, claims = ground(
        predictions,
        _cues(arguments.sources, datasets),
        captions=captions,
        judge=judge,
        samples=settings.report.bootstrap_samples,
        confidence=settings.report.confidence,
        seed=settings.seed,
    )
    write_claims(claims, arguments.claims)
    write_json(result, arguments.metrics)
    for policy in predictions:
        logger.info("%s", summary(result, policy))
    run.log_metrics(metric_values(result))
    run.log_artifact(arguments.metrics)


def _cues(sources: Path, datasets: list[str]) -> CueRecord:
    from erv.grounding.cues import read_cues
    from erv.sources import Lock, store_for

    locks = {name: Lock.load(sources / f"{name}.lock.json") for name in datasets}
    return read_cues(locks, store_for(lock.uri for lock in locks.values()))


if __name__ == "__main__":
    run_stage(
        "grounding",
        main,
        Option("evaluations", Path),
        Option("manifests", Path),
        Option("sources", Path),
        Option("claims", Path),
        Option("metrics", Path),
    )
