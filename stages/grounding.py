"""grounding: which claims of the explanations are true of their clips, and which cues they mention.

Command: see `grounding` in dvc.yaml. The paper measures neither.
"""

from __future__ import annotations

import logging
from pathlib import Path

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

logger = logging.getLogger("stages.grounding")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Checks the explanations of all policies; writes the claims and the measured values."""
    from erv.cues import read_cues
    from erv.evaluate.compare import check_paired
    from erv.evaluate.evaluate import read_predictions, write_json
    from erv.files import read_document
    from erv.grounding.grounding import ground, metric_values, summary, write_claims
    from erv.manifest import read_manifests

    predictions = {
        policy: read_predictions(arguments.evaluations / policy / "predictions.parquet")
        for policy in settings.compare.policies
    }
    check_paired(predictions)
    measured = {
        name: read_document(arguments.evaluations / name / "metrics.json", "evaluate") for name in predictions
    }
    datasets = sorted({row["dataset"] for rows in predictions.values() for row in rows})
    manifests = read_manifests(arguments.manifests, datasets)
    captions = {(name, row.clip_id): row.caption for name, rows in manifests.items() for row in rows}
    judge = None
    if settings.grounding.judge is not None:
        from erv.grounding.judge import judge_of

        judge = judge_of(settings.grounding.judge, arguments.shards)
    result, claims = ground(
        predictions,
        read_cues(arguments.cues, datasets),
        captions=captions,
        judge=judge,
        samples=settings.report.bootstrap_samples,
        confidence=settings.report.confidence,
        seed=settings.seed,
        silent=[name for name, found in measured.items() if not found.get("explains", True)],
    )
    write_claims(claims, arguments.claims)
    write_json(result, arguments.metrics)
    for policy in predictions:
        logger.info("%s", summary(result, policy))
    run.log_metrics(metric_values(result))
    run.log_artifact(arguments.metrics)


if __name__ == "__main__":
    run_stage(
        "grounding",
        main,
        Option("evaluations", Path),
        Option("manifests", Path),
        Option("cues", Path),
        Option("shards", Path),
        Option("claims", Path),
        Option("metrics", Path),
    )
