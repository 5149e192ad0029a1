"""rollouts: explanations that the cold start samples, for the verifier to learn from.

Command: see `rollouts` in dvc.yaml. There is one stage per policy of `rollouts.policies`, none in the demo.
Deviation from the paper: its verifier learns from no text that a policy wrote.
"""

from pathlib import Path

from erv.labels import LabelSpace
from erv.policies.common.policy import stored_prompt
from erv.settings import Settings
from erv.stage import Arguments, Option, StageRun, run_stage


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Samples the explanations and writes them to `--rollouts`."""
    from erv.exclusions import read_exclusions, without
    from erv.manifest import read_manifest
    from erv.rollouts.rollouts import sample_explanations, write_rollouts
    from erv.shards import ShardReader

    rows = without(read_manifest(arguments.manifest), read_exclusions(arguments.exclusions))
    rows = [
        row for row in rows if row.split != "test"
    ]  # a data set that is tested on may stand in for a reasoning set
    prompt, asked = stored_prompt(arguments.policy), {}
    if prompt.fields:
        names = LabelSpace.load(arguments.manifest.stem).names
        asked = {row.clip_id: prompt.ask(names, row.subtitle) for row in rows}
    explanations = sample_explanations(
        arguments.policy,
        [row.clip_id for row in rows],
        ShardReader(arguments.shards),
        settings.rollouts,
        settings.runtime,
        family=settings.policy.family,
        seed=settings.seed,
        asked=asked,
    )
    write_rollouts(explanations, arguments.rollouts)
    run.log_dataset(arguments.manifest.stem, arguments.manifest, "training")
    lost = sum(text is None for _, text in explanations)
    run.log_metrics(
        {"rollouts/sampled": float(len(explanations)), "rollouts/without_explanation": float(lost)}
    )


if __name__ == "__main__":
    run_stage(
        "rollouts",
        main,
        Option("name", str),
        Option("policy", Path),
        Option("manifest", Path),
        Option("shards", Path),
        Option("exclusions", Path),
        Option("rollouts", Path),
    )
