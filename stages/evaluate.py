"""evaluate: what one policy answers on held-out clips, and what a judge reads in its explanations.

Command: see `evaluate` in dvc.yaml. Deviations from the paper:

1. The judge is a classifier trained on its own texts (`evaluate.judge` in params.yaml), not GPT-4.1-mini.
2. An explanation that is empty, or in which no emotion stands out for the judge, has no emotion; the
   released code lets the judge call it neutral.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

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
    from erv.evaluate.categories import categories, noteworthy
    from erv.evaluate.evaluate import (
        OVERALL,
        count_unreadable,
        judge_completions,
        measure,
        write_json,
        write_predictions,
    )
    from erv.evaluate.samples import measure_samples, with_samples
    from erv.manifest import read_manifests
    from erv.policies.common.families import check_family
    from erv.shards import ShardReader

    seed_everything(settings.seed, settings.runtime.threads)
    judge = _judge(arguments, settings)
    check_family(arguments.policy, settings.policy.family)
    roles = settings.roles
    known = categories(roles.test, [roles.cold_start, *roles.train], judge)
    for sentence in (item for name in known for item in known[name].said(name)):
        logger.warning("%s", sentence)  # before hours are spent
    predictions, quarantined = [], {}
    for name, clips in read_manifests(arguments.manifests, settings.roles.test).items():
        run.log_dataset(name, arguments.manifests / f"{name}.parquet", "evaluation")
        rows = [row for row in clips if row.split == settings.evaluate.split]
        reader = ShardReader(arguments.shards / name)
        shown = [row for row in rows if row.clip_id in reader]
        quarantined[name] = len(rows) - len(shown)
        logger.info("%s: %d clips, %d in quarantine", name, len(shown), len(rows) - len(shown))
        completed = _generate(arguments, name, shown, reader, settings)
        completions = {clip_id: item.completion for clip_id, item in completed.items()}
        predictions += with_samples(judge_completions(shown, completions, judge), completed)
    if not predictions:
        tested = ", ".join(settings.roles.test)
        raise EvaluationError(
            f"no clip in the {settings.evaluate.split} split of {tested};"
            " change roles.test or evaluate.split in params.yaml"
        )
    metrics = measure(predictions)
    sampled = measure_samples(predictions)
    write_predictions(predictions, arguments.predictions)
    decoding = settings.evaluate.model_dump(include={"max_new_tokens", "temperature", "split"})
    unreadable = count_unreadable(predictions, judge)
    described = {
        "judge": judge.describe(),
        "decoding": decoding,
        "quarantined": quarantined,
        "unreadable": unreadable,
        **({"sampled": sampled} if sampled else {}),
        **({"categories": noteworthy(known)} if noteworthy(known) else {}),
    }
    write_json({**metrics, **described}, arguments.metrics)
    for scope, values in metrics.items():
        run.log_metrics({f"{scope}/{name}": float(value) for name, value in values.items()})
    run.log_metrics({f"{scope}/unreadable": float(count) for scope, count in unreadable.items()})
    names = ("accuracy", "low", "high", "recall", "recall_low", "recall_high")
    held_out = {name: float(described["judge"][f"held_out_{name}"]) for name in names}
    run.log_metrics({f"judge/{name}": value for name, value in held_out.items()})
    if unreadable[OVERALL]:
        logger.warning(
            "%d of %d explanations are unreadable for the judge (another language, or hardly any word of its"
            " texts); they count as naming no emotion",
            unreadable[OVERALL],
            len(predictions),
        )
    shown_values = ", ".join(f"{name} {metrics[OVERALL][name]:.3f}" for name in ("WAR", "EEA", "EPC", "FCR"))
    logger.info("%s: %s", arguments.name, shown_values)
    run.log_artifact(arguments.predictions)


def _judge(arguments: Arguments, settings: Settings) -> Judge:
    """The judge from the settings; raises an error if it shares a sentence with the verifier."""
    from erv.evaluate.judges import (
        TEXTS_FILE,
        LexicalJudge,
        check_independence,
        judge_quality,
        require_quality,
    )
    from erv.sentences import read_sentences
    from erv.sources import Lock, store_for

    lock = Lock.load(arguments.judge)
    store = store_for([lock.uri])
    kinds = {LexicalJudge.name: LexicalJudge}
    kind = kinds[settings.evaluate.judge]
    judge = kind.from_csv(lock.read(store, TEXTS_FILE).decode("utf-8"), seed=settings.seed)
    described = judge.describe()
    logger.info("judge: %s", judge_quality(described))
    require_quality(described, settings.evaluate, settings.roles.test)
    check_independence(judge.texts, read_sentences(arguments.sentences))
    return judge


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
        Option("judge", Path),
        Option("predictions", Path),
        Option("metrics", Path),
    )
