"""grpo: optimises the cold-start policy for the rewards of one variant, or trains it on what they accept.

Command: see dvc.yaml (`python -m stages.grpo --variant erv ...`). Resumes from its checkpoints under
`.erv/checkpoints/` when it is started again with the same inputs.

Deviations from the paper:
1. Learning rate, KL weight, group size and number of steps are the demo's.
2. Rewards read completions strictly (`grpo.semantics: strict`); `official` is the released code's reading.
3. Clips of both data sets are mixed in one order; the paper's code trains only on the MAFW list.
4. Projectors and gate are frozen (`grpo.freeze_projectors`), which keeps what the cold start recognises with
   the demo's few steps and tiny policy. Rollouts are sampled at 0.6 and one per clip is greedy
   (`grpo.greedy_rollout`), so that what only greedy decoding shows earns or costs too.
   The explanation reward has `grpo.shaping`: fewer than 34 words earn less, a repeated sentence earns -1.
5. A variant of `method: rft` is rejection sampling fine-tuning at equal compute; the paper has none, and the
   demo leaves it out. With it:
   `dvc exp run -S 'compare.train=[r1_omni,erv,rft]' -S 'compare.policies=[sft,r1_omni,erv,rft]'`.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.training.grpo.samples import SampleTable

logger = logging.getLogger("stages.grpo")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Trains `--variant` and writes `--policy`."""
    from erv.checkpoints import checkpoint_folder, clear, reward_files
    from erv.cues import read_cues, require_cues
    from erv.curves import Curves
    from erv.exclusions import read_exclusions, without
    from erv.manifest import read_manifests
    from erv.policies.common.families import check_family
    from erv.policies.common.policy import stored_prompt
    from erv.rewards import READ_SENTENCES, Shaping, accuracy_reward, build_rewards, uncovered
    from erv.rewards.known import unknown_emotions
    from erv.shards import ShardReader
    from erv.training.common.ranks import is_main
    from erv.training.grpo.engine.lacks import vllm_version
    from erv.training.grpo.grpo import build_rows, train_grpo, variant_settings
    from erv.training.grpo.rft import train_rft
    from erv.training.grpo.validation import Validation, drawn
    from erv.training_sets import check_training_sets
    from erv.verifier.memory import SentenceMemory
    from erv.verifier.model import load_for_training

    check_family(arguments.cold_start, settings.policy.family)
    variant = variant_settings(settings.variants, arguments.variant)
    train = settings.roles.train
    hashes = check_training_sets(
        arguments.training_sets, arguments.manifests, arguments.shards, arguments.cues, train
    )
    clips = read_manifests(arguments.manifests, train)
    shards = {name: ShardReader(arguments.shards / name) for name in train}
    for name in train:  # of its rows, the training split is used
        run.log_dataset(name, arguments.manifests / f"{name}.parquet", "source")
    memory = SentenceMemory()
    verifier = load_for_training(arguments.verifier, settings.runtime, memory)
    grpo = variant.applied_to(settings.grpo)
    shaping = Shaping(**grpo.shaping.model_dump())
    named = [reward.name for reward in variant.rewards]
    excluded = read_exclusions(arguments.exclusions)
    prompt = stored_prompt(arguments.cold_start)
    rows = build_rows([without(found, excluded) for found in clips.values()], shards, prompt)
    cues = None
    if "grounded" in named:
        cues = read_cues(arguments.cues, train)
        wanted = {name: [row["clip_id"] for row in rows if row["dataset"] == name] for name in cues}
        require_cues(cues, wanted, "the reward grounded")
    rewards = build_rewards(variant.rewards, verifier, grpo.semantics, shaping=shaping, cues=cues)
    reading = [name for name in READ_SENTENCES if name in named]
    if reading:
        gap = uncovered(verifier, grpo.semantics, shaping)
        if gap is not None:
            logger.warning("%s", gap)
        for sentence in unknown_emotions(verifier.labels, train, reading):
            logger.warning("%s", sentence)
    by_vllm = grpo.generation == "vllm" and variant.method == "grpo"
    # It is in an environment of its own, so the key has no version of it among those of our libraries.
    vllm = vllm_version(Path(settings.machine.grpo.vllm_python)) if by_vllm else None
    checkpoints = checkpoint_folder(
        f"grpo@{arguments.variant}",
        training_sets=hashes,
        exclusions=arguments.exclusions,
        cold_start=arguments.cold_start,
        verifier=arguments.verifier,
        settings=grpo,
        variant=variant,
        seed=settings.seed,
        runtime=settings.runtime,
        vllm=vllm,
        reward_code=reward_files(named),
    )
    ours = checkpoints / settings.machine.layout
    validation = None
    every = settings.machine.grpo.validate_steps
    if every is not None and variant.method == "grpo":
        held_out = build_rows(
            [without(found, excluded) for found in clips.values()], shards, prompt, "validation"
        )
        # A verifier of its own: what that of the rewards remembers is part of the result.
        apart = load_for_training(arguments.verifier, settings.runtime, SentenceMemory())
        validation = Validation(
            drawn(held_out, settings.machine.grpo.validate_clips),
            build_rewards(variant.rewards, apart, grpo.semantics, shaping=shaping, cues=cues),
            partial(accuracy_reward, semantics=grpo.semantics),
            every,
        )
    curves = Curves(ours, run.log_metrics)
    inputs = (arguments.cold_start, rows, shards, rewards, grpo)
    options: dict[str, Any] = {
        "output": arguments.policy,
        "checkpoints": ours,
        "on_metrics": curves,
        "seed": settings.seed,
        "runtime": settings.runtime,
        "machine": settings.machine,
    }
    if variant.passes_at is not None:
        train_rft(*inputs, passes_at=variant.passes_at, **options)
    else:
        train_grpo(
            *inputs,
            kept=[memory],
            on_samples=lambda table: log_samples(run, table),
            verifier=verifier.reader(),
            thinks=variant.thinks,
            validation=validation,
            **options,
        )
    if is_main():
        curves.write(arguments.curves)
    clear(checkpoints)


def log_samples(run: StageRun, table: SampleTable) -> None:
    """Stores sample completions as a table and as a page."""
    name = f"samples/step_{table.step:05d}"
    run.log_table(table.columns, table.rows, name)
    run.log_text(table.html(), f"{name}.html")


if __name__ == "__main__":
    run_stage(
        "grpo",
        main,
        Option("variant"),
        Option("manifests", Path),
        Option("shards", Path),
        Option("exclusions", Path),
        Option("cues", Path),
        Option("training-sets", Path),
        Option("cold-start", Path),
        Option("verifier", Path),
        Option("policy", Path),
        Option("curves", Path),
        distributed=True,
    )
