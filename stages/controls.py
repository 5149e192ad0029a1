"""controls: what a policy answers when its clips are exchanged, or lose their frames or their sound.

Command: see `controls` in dvc.yaml. The paper has none of these.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.completions.draws import DrawnTokens
    from erv.evaluate.judges.protocol import Judge

logger = logging.getLogger("stages.controls")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Generates and judges under each control; writes the answers and the measured differences."""
    from erv.controls.controls import measure_control, write_answers
    from erv.controls.showing import showing
    from erv.determinism import resolve_device, seed_everything
    from erv.evaluate.evaluate import OVERALL, judge_completions, read_predictions, write_json
    from erv.labels import LabelSpace
    from erv.manifest import read_manifests
    from erv.policies import load_policy
    from erv.policies.common.arm import read_arm
    from erv.policies.common.generate import generate_completions
    from erv.shards import ShardReader

    seed_everything(settings.seed, settings.runtime.threads)
    plain = read_predictions(arguments.predictions)
    judges = _judges(arguments, settings)
    explains = read_arm(arguments.policy).thinks
    policy = load_policy(
        arguments.policy,
        device=resolve_device(settings.runtime.device),
        dtype=settings.runtime.dtype,
        family=settings.policy.family,
    )
    manifests = read_manifests(arguments.manifests, settings.roles.test)
    readers = {name: ShardReader(arguments.shards / name) for name in manifests}
    answers: list[dict[str, Any]] = []
    measured: dict[str, Any] = {}
    for control in settings.controls.kinds:
        rows, left_out = [], {}
        for name, clips in manifests.items():
            reader = readers[name]
            tested = [row for row in clips if row.split == settings.evaluate.split and row.clip_id in reader]
            shown = showing(control, tested, reader.silent, settings.seed)
            left_out[name] = shown.left_out
            prompt, asked = policy.processor.prompt, {}
            if prompt.fields:
                names = LabelSpace.load(name).names
                asked = {clip: prompt.ask(names, subtitle) for clip, subtitle in shown.subtitles.items()}
            tokens, temperature = settings.evaluate.max_new_tokens, settings.evaluate.temperature
            drawn = None
            if temperature > 0:  # the same numbers as in the evaluation, clip by clip
                suppressed = policy.model.placeholder_ids
                drawn = functools.partial(_drawn, settings.seed, tokens, temperature, name, suppressed)
            completions = generate_completions(
                policy,
                shown.clips(reader.get),
                batch_size=settings.evaluate.batch_size,
                max_new_tokens=tokens,
                temperature=0.0,
                seed=settings.seed,
                video=shown.video,
                asked=asked,
                drawn=drawn,
            )
            rows += judge_completions(shown.rows, completions, judges)
            media = dict(zip((row.clip_id for row in shown.rows), shown.shown, strict=True))
            answers += [
                {**row, "control": control, "shown": media[row["clip_id"]]}
                for row in rows
                if row["dataset"] == name
            ]
        measured[control] = measure_control(
            control,
            rows,
            plain,
            samples=settings.report.bootstrap_samples,
            confidence=settings.report.confidence,
            seed=settings.seed,
            explains=explains,
        ) | {"left_out": left_out}
        _tell(arguments.name, control, measured[control], OVERALL)
    write_answers(answers, arguments.answers)
    write_json({"controls": measured}, arguments.metrics)
    for name, found in measured.items():
        for part in ("metrics", "difference"):
            run.log_metrics(
                {
                    f"{name}/{part}/{scope}/{metric}": item["value"]
                    for scope, values in found[part].items()
                    for metric, item in values.items()
                    if item["value"] is not None
                }
            )
    run.log_artifact(arguments.metrics)


def _drawn(
    seed: int,
    tokens: int,
    temperature: float,
    dataset: str,
    suppressed: Sequence[int],
    clip_ids: Sequence[str],
    prompt: int,
) -> DrawnTokens:
    from erv.completions.draws import draws_of

    return draws_of(
        seed,
        dataset,
        clip_ids,
        0,
        tokens=tokens,
        temperature=temperature,
        prompt=prompt,
        suppressed=suppressed,
    )


def _tell(policy: str, control: str, found: dict[str, Any], scope: str) -> None:
    war, plain = found["metrics"][scope]["WAR"], found["plain"][scope]["WAR"]
    if war["value"] is None:
        logger.warning("%s, %s: no clip to show, so nothing is measured", policy, control)
        return
    logger.info(
        "%s, %s: WAR %.3f (%.3f to %.3f) instead of %.3f on %d clips; the same answer on %.1f%%",
        *(policy, control, war["value"], war["low"], war["high"], plain["value"], found["clips"][scope]),
        100 * found["same_answer"][scope],
    )
    expected = found["chance"][scope]
    if control == "shuffled" and war["low"] > expected:
        logger.warning(
            "%s is right about clips that it never saw: WAR %.3f (from %.3f) where chance is %.3f; something"
            " other than frames and sound tells it the answer",
            *(policy, war["value"], war["low"], expected),
        )


def _judges(arguments: Arguments, settings: Settings) -> list[Judge]:
    """The panel of the evaluation; its worth and independence are checked there."""
    from erv.evaluate.judges.build import build_judges, model_folders
    from erv.evaluate.judges.lexical import TEXTS_FILE
    from erv.sources import Lock, store_for

    own, base = Lock.load(arguments.judge), Lock.load(arguments.base)
    store = store_for([own.uri, base.uri])
    with model_folders(base, store) as folder_of:
        return build_judges(
            settings.evaluate.judges,
            runtime=settings.runtime,
            texts=lambda: own.read(store, TEXTS_FILE),
            folder_of=folder_of,
        )


if __name__ == "__main__":
    run_stage(
        "controls",
        main,
        Option("name"),
        Option("policy", Path),
        Option("manifests", Path),
        Option("shards", Path),
        Option("judge", Path),
        Option("base", Path),
        Option("predictions", Path),
        Option("answers", Path),
        Option("metrics", Path),
    )
