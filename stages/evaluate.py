"""evaluate: what one policy answers on held-out clips, and what judges read in its explanations.

Command: see `evaluate` in dvc.yaml. Deviations from the paper:

1. The judges are those of `evaluate.judges` in params.yaml, the first of them for the headline; the paper
   asks GPT-4.1-mini alone, as a judge `openai` in mode `official` does.
2. An explanation that is empty, or in which no emotion stands out for a judge, has no emotion; the released
   code lets the judge call it neutral.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import EvaluationError
from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.completions.pieces import Completed
    from erv.evaluate.judges import Judge
    from erv.manifest import ClipRow
    from erv.shards import ShardReader

logger = logging.getLogger("stages.evaluate")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Generates, judges, measures and writes the predictions."""
    from erv.determinism import seed_everything
    from erv.evaluate.applicable import without_explanations
    from erv.evaluate.categories import categories, noteworthy, require_pooled, unheard_by
    from erv.evaluate.code import code_digests
    from erv.evaluate.evaluate import (
        OVERALL,
        judge_completions,
        measure,
        read_by_panel,
        write_json,
        write_predictions,
    )
    from erv.evaluate.judges.panel import require_replies
    from erv.evaluate.samples import measure_samples, with_samples
    from erv.manifest import read_manifests
    from erv.policies.common.arm import read_arm
    from erv.policies.common.families import check_family
    from erv.shards import ShardReader

    seed_everything(settings.seed, settings.runtime.threads)
    judges, described = _judges(arguments, settings)
    check_family(arguments.policy, settings.policy.family)
    roles = settings.roles
    known = categories(roles.test, [roles.cold_start, *roles.train], judges)
    for sentence in (item for name in known for item in known[name].said(name)):
        logger.warning("%s", sentence)  # before hours are spent
    tested, quarantined = {}, {}
    for name, clips in read_manifests(arguments.manifests, settings.roles.test).items():
        run.log_dataset(name, arguments.manifests / f"{name}.parquet", "evaluation")
        rows = [row for row in clips if row.split == settings.evaluate.split]
        reader = ShardReader(arguments.shards / name)
        shown = [row for row in rows if row.clip_id in reader]
        tested[name] = reader, shown
        quarantined[name] = len(rows) - len(shown)
        logger.info("%s: %d clips, %d in quarantine", name, len(shown), len(rows) - len(shown))
    if not any(shown for _, shown in tested.values()):
        raise EvaluationError(
            f"no clip in the {settings.evaluate.split} split of {', '.join(tested)};"
            " change roles.test or evaluate.split in params.yaml"
        )
    require_pooled([row for _, shown in tested.values() for row in shown], settings.evaluate.split)
    predictions = []
    for name, (reader, shown) in tested.items():
        completed = _generate(arguments, name, shown, reader, settings)
        completions = {clip_id: item.completion for clip_id, item in completed.items()}
        predictions += with_samples(judge_completions(shown, completions, judges), completed)
    require_replies(predictions, settings.evaluate.max_failed_share)
    metrics = measure(predictions)
    explains = read_arm(arguments.policy).thinks
    if not explains:
        metrics = without_explanations(metrics)
    sampled = measure_samples(predictions)
    write_predictions(predictions, arguments.predictions)
    decoding = settings.evaluate.model_dump(include={"max_new_tokens", "temperature", "split"})
    panel = read_by_panel(predictions, described)
    if not explains:
        for figures in panel["judges"].values():
            figures["metrics"] = without_explanations(figures["metrics"])
        panel["majority"] = without_explanations(panel["majority"])
    for judge, figures in panel["judges"].items():
        if missed := unheard_by(known, judge):
            figures["unheard"] = missed
    unreadable = panel["unreadable"]
    about = {**panel, **({} if explains else {"explains": False}), "decoding": decoding}
    about["code"] = code_digests(roles.test)
    if sampled:
        about["sampled"] = sampled
    if noteworthy(known):
        about["categories"] = noteworthy(known)
    write_json({**metrics, **about, "quarantined": quarantined}, arguments.metrics)
    for scope, values in metrics.items():
        run.log_metrics({f"{scope}/{n}": float(value) for n, value in values.items() if value is not None})
    run.log_metrics({f"{scope}/unreadable": float(count) for scope, count in unreadable.items()})
    _log_panel(panel, judges, predictions, run)
    if unreadable[OVERALL]:
        logger.warning(
            "%d of %d explanations are unreadable for the judge %s (another language, or words that it"
            " doesn't know); they count as naming no emotion",
            unreadable[OVERALL],
            len(predictions),
            judges[0].name,
        )
    overall = {name: metrics[OVERALL][name] for name in ("WAR", "EEA", "EPC", "FCR")}
    shown_values = ", ".join(f"{name} {value:.3f}" for name, value in overall.items() if value is not None)
    logger.info("%s: %s", arguments.name, shown_values)
    run.log_artifact(arguments.predictions)


def _judges(arguments: Arguments, settings: Settings) -> tuple[list[Judge], list[dict[str, Any]]]:
    """The panel from the settings, and what each judge says of itself, with its worth.

    Raises:
        EvaluationError: a judge is too poor, or shares a sentence or a weight with the verifier.
    """
    from erv.evaluate.judges.build import build_judges, model_folders
    from erv.evaluate.judges.independence import check_independence
    from erv.evaluate.judges.lexical import TEXTS_FILE
    from erv.evaluate.judges.worth import (
        judge_quality,
        measure_worth,
        read_labelled,
        require_quality,
        unmeasured,
    )
    from erv.sentences import read_sentences
    from erv.sources import Lock, store_for

    own, base = Lock.load(arguments.judge), Lock.load(arguments.base)
    labelled = read_labelled(arguments.labelled, settings.roles.test)
    sentences = read_sentences(arguments.sentences)
    described = []
    store = store_for([own.uri, base.uri])
    with model_folders(base, store) as folder_of:
        judges = build_judges(
            settings.evaluate.judges,
            runtime=settings.runtime,
            texts=lambda: own.read(store, TEXTS_FILE),
            folder_of=folder_of,
        )
        for judge in judges:
            check_independence(judge, sentences, arguments.verifier)
            described.append({**judge.describe(), "worth": measure_worth(judge, labelled)})
            logger.info("judge %s: %s", judge.name, judge_quality(described[-1]))
            require_quality(described[-1], settings.evaluate, settings.roles.test)
            gap = unmeasured(described[-1], settings.roles.test)
            if gap is not None:
                logger.warning("%s", gap)
    return judges, described


def _log_panel(
    panel: dict[str, Any], judges: list[Judge], predictions: list[dict[str, Any]], run: StageRun
) -> None:
    """Worth, figures, agreement and usage of the judges, and the clips on which they disagree."""
    from erv.evaluate.judges.chat import ChatJudge
    from erv.evaluate.judges.panel import disagreements

    for judge in judges:
        name = re.sub(r"[^\w\-. :/]", "_", judge.name)  # what MLflow allows in a name
        found = panel["judges"][judge.name]
        worth = {key: found["worth"][key] for key in ("accuracy", "low", "high", "recall")}
        run.log_metrics({f"judge/{name}/{key}": float(value) for key, value in worth.items()})
        for scope, values in found["metrics"].items():
            known = {key: float(value) for key, value in values.items() if value is not None}
            run.log_metrics({f"{scope}/{key} by {name}": value for key, value in known.items()})
        if isinstance(judge, ChatJudge):
            usage = dataclasses.asdict(judge.asked.usage)
            run.log_metrics({f"judge/{name}/{key}": float(n) for key, n in usage.items() if n is not None})
    if panel["agreement"]["alpha"] is not None:
        run.log_metrics({"judges/alpha": panel["agreement"]["alpha"]})
    rows = [
        [item["dataset"], item["clip_id"], item["label"], item["predicted"], *item["said"].values()]
        for item in disagreements(predictions)
    ]
    columns = ["dataset", "clip", "truth", "answer", *(judge.name for judge in judges)]
    run.log_table(columns, rows, "disagreements")


def _generate(
    arguments: Arguments, dataset: str, rows: list[ClipRow], reader: ShardReader, settings: Settings
) -> dict[str, Completed]:
    """The completions of a data set's clips; finished pieces of a killed run are reused."""
    from erv.completions.completions import complete
    from erv.completions.pieces import Asked, Decoding
    from erv.labels import LabelSpace
    from erv.policies.common.policy import stored_prompt

    chosen, prompt = settings.evaluate, stored_prompt(arguments.policy)
    names = LabelSpace.load(dataset).names
    return complete(
        arguments.name,
        dataset,
        [
            Asked(
                row.clip_id,
                sound=row.clip_id not in reader.silent,
                instruction=prompt.ask(names, row.subtitle) if prompt.fields else None,
            )
            for row in rows
        ],
        Decoding(
            batch_size=chosen.batch_size,
            max_new_tokens=chosen.max_new_tokens,
            temperature=chosen.temperature,
            samples=chosen.samples,
            sample_temperature=chosen.sample_temperature,
            seed=settings.seed,
        ),
        policy=arguments.policy,
        shards=arguments.shards / dataset,
        family=settings.policy.family,
        runtime=settings.runtime,
        processes=settings.machine.evaluate.processes,
        feature_bytes=int(settings.machine.evaluate.features_gb * 1e9),
    )


if __name__ == "__main__":
    run_stage(
        "evaluate",
        main,
        Option("name"),
        Option("policy", Path),
        Option("manifests", Path),
        Option("shards", Path),
        Option("sentences", Path),
        Option("verifier", Path),
        Option("judge", Path),
        Option("base", Path),
        Option("labelled", Path),
        Option("predictions", Path),
        Option("metrics", Path),
    )
