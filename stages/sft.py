"""sft: the cold start, which teaches a policy to explain before it answers.

Command: see `sft` in dvc.yaml. Resumes from its checkpoints under `.erv/checkpoints/` when it is started
again with the same inputs.

Deviations from the paper:
1. The explanations are those of the reasoning source: EMER's if you have them, else the sample's.
2. Prompt, tokenizer and chat template are those of inference; in the released code they differ.
3. Towers run once per clip, and their features are kept; they are frozen either way.
4. `sft.lora` trains only adapters of the language model and adds them to its weights.
5. `sft.max_steps: 0` trains nothing: a released policy that explains already (R1-Omni, EMER-SFT) is the cold
   start as it is, and no reasoning set is needed.
"""

import logging
from pathlib import Path

from erv.checkpoints import checkpoint_folder, clear
from erv.settings import Settings
from erv.sources import Lock, store_for
from erv.stage import Arguments, Option, StageRun, run_stage

BASE = Path(".erv/base/policy")
logger = logging.getLogger("stages.sft")


def main(arguments: Arguments, settings: Settings, run: StageRun) -> None:
    """Fine-tunes the base policy and writes `--policy`."""
    from erv.curves import Curves, write_curves
    from erv.exclusions import read_exclusions, without
    from erv.labels import LabelSpace
    from erv.manifest import read_manifest
    from erv.policies import load_policy
    from erv.prompts import read_prompt
    from erv.shards import ShardReader
    from erv.training.common.ranks import is_main, one_at_a_time
    from erv.training.sft.sft import train_sft

    lock = Lock.load(arguments.base)
    BASE.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(BASE):
        base = lock.fetch_tree(store_for([lock.uri]), "policy", BASE)
    policy = load_policy(base, family=settings.policy.family)
    policy.processor.use_prompt(read_prompt(settings.policy.prompt))
    if settings.sft.max_steps == 0:
        logger.info("sft: the base is taken as it is (sft.max_steps: 0)")
        if is_main():
            policy.save(arguments.policy)
            write_curves({}, arguments.curves)
        return
    checkpoints = checkpoint_folder(
        "sft",
        manifest=arguments.manifest,
        shards=arguments.shards,
        exclusions=arguments.exclusions,
        base=base,
        settings=settings.sft,
        runtime=settings.runtime,
        seed=settings.seed,
        prompt=Path(settings.policy.prompt),
    )
    ours = checkpoints / settings.machine.layout
    curves = Curves(ours, run.log_metrics)
    run.log_dataset(arguments.manifest.stem, arguments.manifest, "training")
    train_sft(
        policy,
        without(read_manifest(arguments.manifest), read_exclusions(arguments.exclusions)),
        {arguments.shards.name: ShardReader(arguments.shards)},
        settings.sft,
        checkpoints=ours,
        on_metrics=curves,
        seed=settings.seed,
        runtime=settings.runtime,
        machine=settings.machine,
        output=arguments.policy,
        labels=LabelSpace.load(arguments.manifest.stem).names,
    )
    if is_main():
        curves.write(arguments.curves)
    clear(checkpoints)


if __name__ == "__main__":
    run_stage(
        "sft",
        main,
        Option("manifest", Path),
        Option("shards", Path),
        Option("exclusions", Path),
        Option("base", Path),
        Option("policy", Path),
        Option("curves", Path),
        distributed=True,
    )
