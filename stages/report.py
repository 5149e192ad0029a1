"""report: compares all policies on the same clips, with intervals, on a page that needs nothing else.

Command: see `report` in dvc.yaml. Deviations from the paper:

1. It gives intervals and paired differences; the paper gives single figures.
2. Where it is recorded which cues a clip truly shows, it also says which claims of an explanation are true.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.report.readings import SentenceReader

logger = logging.getLogger("stages.report")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Compares the policies; writes the comparison and the page."""
    from erv.cues import planted_share, read_cues
    from erv.evaluate.compare import format_table, metrics_table
    from erv.evaluate.evaluate import write_json
    from erv.evaluate.summary import write_figures
    from erv.files import read_document
    from erv.report import page, report, tables
    from erv.report.datasets import read_datasets
    from erv.report.evidence import Evidence
    from erv.shards import ShardReader
    from erv.verifier import EmotionVerifier
    from erv.verifier.model import read_metrics

    predictions, evaluations = report.load_evaluations(arguments.evaluations, settings.compare.policies)
    datasets = sorted({row["dataset"] for rows in predictions.values() for row in rows})
    cues = read_cues(arguments.cues, [*datasets, settings.roles.cold_start])
    evidence = Evidence(
        evaluations=evaluations,
        verifier=read_metrics(arguments.verifier),
        sentences=read_document(arguments.sentences, "distill"),
        leakage=read_document(arguments.leakage, "leakage"),
        data=read_datasets(settings.datasets, arguments.plots, arguments.checks, arguments.verdicts),
        cues=cues,
        grounding=read_document(arguments.grounding, "grounding"),
        planted=planted_share(cues),
    )
    comparison = report.build_comparison(predictions, evidence, settings.report, seed=settings.seed)
    readers = {name: ShardReader(arguments.shards / name) for name in datasets}
    page.write_report(
        predictions,
        comparison,
        evidence,
        settings.report,
        seed=settings.seed,
        candidate=settings.register_.policy,
        verifier=EmotionVerifier.from_pretrained(arguments.verifier),
        judges=_sentence_readers(arguments.sources, settings),
        clip_of=lambda dataset, clip_id: readers[dataset].get(clip_id),
        html=arguments.html,
        folder=arguments.clips,
    )
    tables.write_tables(predictions, comparison, arguments.tables)
    write_json(comparison, arguments.comparison)
    write_figures(comparison, settings.register_.policy, arguments.figures)
    logger.info("%s\n%s", arguments.html, format_table(metrics_table(comparison)))
    run.log_artifact(arguments.html)
    run.log_artifact(arguments.clips, "clips")
    run.log_artifact(arguments.comparison)
    log_figures(comparison, arguments.evaluations, settings.register_.policy, run)


def log_figures(comparison: dict[str, Any], evaluations: Path, candidate: str, run: StageRun) -> None:
    """Logs the figures of all policies, and what those of the candidate were measured on and by."""
    from erv.evaluate.measured import measured_tags

    for policy, scopes in comparison["policies"].items():
        run.log_results(
            {
                f"{policy}/{scope}/{metric}": item["value"]
                for scope, values in scopes.items()
                for metric, item in values.items()
                if item["value"] is not None
            }
        )
    if candidate in comparison["policies"]:
        folder = evaluations / candidate
        run.set_measured(measured_tags(folder / "predictions.parquet", folder / "metrics.json"))


def _sentence_readers(sources: Path, settings: Settings) -> dict[str, SentenceReader]:
    """The judges that can afford to read every sentence: those that don't chat."""
    from erv.evaluate.judges.build import build_judges, model_folders
    from erv.evaluate.judges.lexical import TEXTS_FILE
    from erv.report.readings import reader_of
    from erv.settings.judges import EmbeddingJudge, LexicalJudge
    from erv.sources import Lock, store_for

    own, base = (Lock.load(sources / f"{name}.lock.json") for name in ("judge", "base"))
    store = store_for([own.uri, base.uri])
    with model_folders(base, store) as folder_of:
        judges = build_judges(
            [item for item in settings.evaluate.judges if isinstance(item, LexicalJudge | EmbeddingJudge)],
            runtime=settings.runtime,
            texts=lambda: own.read(store, TEXTS_FILE),
            folder_of=folder_of,
        )
        return {judge.name: reader_of(judge) for judge in judges}


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
        Option("cues", Path),
        Option("grounding", Path),
        Option("verifier", Path),
        Option("sentences", Path),
        Option("html", Path),
        Option("clips", Path),
        Option("tables", Path),
        Option("comparison", Path),
        Option("figures", Path),
    )
