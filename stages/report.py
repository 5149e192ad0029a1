"""report: compares all policies on the same clips, with intervals, on one self-contained page.

Command: see `report` in dvc.yaml. Deviations from the paper:

1. It gives intervals and paired differences; the paper gives single figures.
2. If the source has a record of the true cues, it also says whether the clip shows what an explanation
claims.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.grounding.cues import CueRecord

logger = logging.getLogger("stages.report")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Compares the policies; writes the comparison and the page."""
    from erv.evaluate.compare import format_table, metrics_table
    from erv.evaluate.evaluate import write_json
    from erv.files import read_document, write_text
    from erv.report import report
    from erv.report.datasets import read_datasets
    from erv.shards import ShardReader
    from erv.verifier import EmotionVerifier
    from erv.verifier.model import read_metrics

    predictions, evaluations = report.load_evaluations(arguments.evaluations, settings.compare.policies)
    datasets = sorted({row["dataset"] for rows in predictions.values() for row in rows})
    record = _cues(arguments.sources, [*datasets, settings.roles.cold_start])
    evidence = report.Evidence(
        evaluations=evaluations,
        verifier=read_metrics(arguments.verifier),
        sentences=read_document(arguments.sentences, "distill"),
        leakage=read_document(arguments.leakage, "leakage"),
        data=read_datasets(settings.datasets, arguments.plots, arguments.checks, arguments.verdicts),
        cues=record.cues,
        planted=record.planted,
    )
    shared: dict[str, Any] = {"seed": settings.seed, "find_cues": record.find_cues}
    comparison = report.build_comparison(predictions, evidence, settings.report, **shared)
    readers = {name: ShardReader(arguments.shards / name) for name in datasets}
    page = report.render_report(
        predictions,
        comparison,
        evidence,
        settings.report,
        verifier=EmotionVerifier.from_pretrained(arguments.verifier),
        clip_of=lambda dataset, clip_id: readers[dataset].get(clip_id),
        **shared,
    )
    write_text(page, arguments.html)
    write_json(comparison, arguments.comparison)
    logger.info("%s\n%s", arguments.html, format_table(metrics_table(comparison)))
    run.log_artifact(arguments.html)
    run.log_artifact(arguments.comparison)
    for policy, scopes in comparison["policies"].items():
        run.log_metrics(
            {f"{policy}/{scope}/{m}": item["value"] for scope, v in scopes.items() for m, item in v.items()}
        )


def _cues(sources: Path, datasets: list[str]) -> CueRecord:
    from erv.grounding.cues import read_cues
    from erv.sources import Lock, store_for

    locks = {name: Lock.load(sources / f"{name}.lock.json") for name in datasets}
    return read_cues(locks, store_for(lock.uri for lock in locks.values()))


if __name__ == "__main__":
    run_stage(
        "report",
        main,
        Option("evaluations", Path),
        Option("checks", Path),
        Option("shards", Path),
        Option("plots", Path),
        Option("verdicts", Path),
        Option("leakage", Path),
        Option("sources", Path),
        Option("verifier", Path),
        Option("sentences", Path),
        Option("html", Path),
        Option("comparison", Path),
    )
