"""grpo: optimises the cold-start policy against the rewards of one variant.

Command: see dvc.yaml (`python -m stages.grpo --variant erv ...`). Resumes from its checkpoints under
`.erv/checkpoints/` when it is started again with the same inputs.

Deviations from the paper:
1. Learning rate, KL weight, group size and number of steps are the demo's.
2. Rewards read completions strictly (`grpo.semantics: strict`); `official` is the released code's reading.
3. Clips of both data sets are mixed in one order; the paper's code trains on the MAFW list alone.
4. Projectors and gate are frozen (`grpo.freeze_projectors`), and rollouts are sampled at 0.8: with the demo's
   few steps and tiny policy, both keep what the cold start recognises.
"""

from pathlib import Path

from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Trains `--variant` and writes `--policy`."""
    from erv.checkpoints import checkpoint_folder, clear, source_files
    from erv.data.manifest import read_manifest
    from erv.rewards import Shaping, build_rewards
    from erv.shards import ShardReader
    from erv.training.grpo_run import build_rows, train_grpo, variant_settings
    from erv.training.samples import SampleTable
    from erv.verifier.memory import SentenceMemory
    from erv.verifier.model import load_for_training

    variant = variant_settings(settings.grpo, arguments.variant)
    manifests = [read_manifest(path) for path in arguments.manifest]
    shards = {folder.name: ShardReader(folder) for folder in arguments.shards}
    for path in arguments.manifest:
        run.log_dataset(path.stem, path, "source")  # of its rows, the training split is used
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
        settings=settings.grpo.model_dump(exclude={"variants", "sample_steps"}),  # samples decide nothing
        variant=variant,
        seed=settings.seed,
        runtime=settings.runtime,
        reward_code=source_files([reward.name for reward in variant.rewards]),
    )

    def show(table: SampleTable) -> None:
        name = f"samples/step_{table.step:05d}"
        run.log_table(table.columns, table.rows, name)
        run.log_text(table.html(), f"{name}.html")

    train_grpo(
        arguments.cold_start,
        build_rows(manifests, shards),
        shards,
        rewards,
        settings.grpo,
        output=arguments.policy,
        checkpoints=checkpoints,
        on_metrics=run.log_metrics,
        seed=settings.seed,
        runtime=settings.runtime,
        rows_per_pass=settings.grpo.rows_per_pass,
        kept=[memory],
        on_samples=show,
        verifier=verifier.reader(),
    )
    clear(checkpoints)


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
    )
