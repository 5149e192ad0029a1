"""grpo: optimises the cold-start policy for the rewards of one variant, or trains it on what they accept.

Command: see dvc.yaml (`python -m stages.grpo --variant erv ...`). Resumes from its checkpoints under
`.erv/checkpoints/` when it is started again with the same inputs.

Deviations from the paper:
1. Learning rate, KL weight, group size and number of steps are the demo's.
2. Rewards read completions strictly (`grpo.semantics: strict`); `official` is the released code's reading.
3. Clips of both data sets are mixed in one order; the paper's code trains only on the MAFW list.
4. Projectors and gate are frozen (`grpo.freeze_projectors`), and rollouts are sampled at 0.8: with the demo's
   few steps and tiny policy, both keep what the cold start recognises.
5. A variant of `method: rft` is rejection sampling fine-tuning at equal compute; the paper has none, and the
   demo leaves it out. With it:
   `dvc exp run -S 'grpo.train=[r1_omni,erv,rft]' -S 'evaluate.policies=[sft,r1_omni,erv,rft]'`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage

if TYPE_CHECKING:
    from erv.training.grpo.samples import SampleTable


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Trains `--variant` and writes `--policy`."""
    from erv.checkpoints import checkpoint_folder, clear, reward_files
    from erv.manifest import read_manifest
    from erv.rewards import Shaping, build_rewards
    from erv.shards import ShardReader
    from erv.training.grpo.grpo import build_rows, train_grpo, variant_settings
    from erv.training.grpo.rft import train_rft
    from erv.verifier.memory import SentenceMemory
    from erv.verifier.model import load_for_training

    variant = variant_settings(settings.grpo, arguments.variant)
    manifests = [read_manifest(path) for path in arguments.manifest]
    shards = {folder.name: ShardReader(folder) for folder in arguments.shards}
    for path in arguments.manifest:
        run.log_dataset(path.stem, path, "source")  # only the rows of its training split are used
    memory = SentenceMemory()
    verifier = load_for_training(arguments.verifier, settings.runtime, memory)
    rewards = build_rewards(
        variant.rewards,
        verifier,
        settings.grpo.semantics,
        shaping=Shaping(**settings.grpo.shaping.model_dump()),
    )
    checkpoints = checkpoint_folder(
        f"grpo@{arguments.variant}",
        manifests=arguments.manifest,
        shards=arguments.shards,
        cold_start=arguments.cold_start,
        verifier=arguments.verifier,
        # other variants, and how often samples are shown, don't change the result
        settings=settings.grpo.model_dump(exclude={"train", "variants", "sample_steps"}),
        variant=variant,
        seed=settings.seed,
        runtime=settings.runtime.model_dump(exclude={"feature_cache_gb"}),  # memory, not numbers
        reward_code=reward_files([reward.name for reward in variant.rewards]),
    )
    inputs = (arguments.cold_start, build_rows(manifests, shards), shards, rewards, settings.grpo)
    options: dict[str, Any] = {
        "output": arguments.policy,
        "checkpoints": checkpoints,
        "on_metrics": run.log_metrics,
        "seed": settings.seed,
        "runtime": settings.runtime,
    }
    if variant.passes_at is not None:
        train_rft(*inputs, passes_at=variant.passes_at, **options)
    else:
        train_grpo(
            *inputs,
            rows_per_pass=settings.grpo.rows_per_pass,
            kept=[memory],
            on_samples=lambda table: log_samples(run, table),
            verifier=verifier.reader(),
            **options,
        )
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
        Option("manifest", Path, multiple=True),
        Option("shards", Path, multiple=True),
        Option("cold-start", Path),
        Option("verifier", Path),
        Option("policy", Path),
        distributed=True,
    )
