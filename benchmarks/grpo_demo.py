"""A GRPO step of the demo against the step as it was before, on the demo's own cold start and clips.

    python -m benchmarks.grpo_demo                     # in a workspace where `make demo` has run
    python -m benchmarks.grpo_demo --workspace PATH --steps 4

Both take turns in one process, one step each with new clips, and sample until their completions end; the
first turn doesn't count. Seconds are CPU seconds of this process. The reward is a cheap one, so the
verifier's share is left out. Then the policies of both score the same completions: log-probabilities, loss
and gradients must agree.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.grpo_measured import PARTS
from benchmarks.grpo_ways import agree, make_trainer, step
from benchmarks.grpo_worker import prompts_of, seconds_of
from benchmarks.workspace import demanded, positive, settings_demanded
from erv.determinism import seed_everything
from erv.policies import load_policy
from erv.shards import ShardReader
from erv.training.common.allocator import keep_freed_memory
from erv.training.grpo.watch import quiet_libraries

SIDES = ("erv", "before")


def main() -> None:
    """Reads the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--steps", type=positive, default=4, help="steps that count")
    with tempfile.TemporaryDirectory() as scratch:
        compare(parser.parse_args(), Path(scratch))


def compare(arguments: argparse.Namespace, scratch: Path) -> None:
    """Runs and prints; `scratch` is a folder for whatever a trainer writes."""
    root = arguments.workspace
    demanded(root, "params.yaml", "models/policy/sft", "data/shards")
    settings = settings_demanded(root)
    seed_everything(0, 1)
    keep_freed_memory()
    grpo = settings.grpo.model_copy(update={"max_steps": arguments.steps + 2})
    readers = {name: ShardReader(root / "data/shards" / name) for name in settings.roles.train}
    trainers = {}
    for side in SIDES:
        policy = load_policy(root / "models/policy/sft")
        policy.model.config._name_or_path = str(root / "models/policy/sft")
        trainers[side] = make_trainer(side, policy, readers, grpo, settings.runtime, scratch, ending=True)
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for turn in range(arguments.steps + 1):
        for side, trainer in trainers.items():
            watch, _ = step(trainer, prompts_of(trainer, turn, grpo.prompts_per_step), update=False)
            if turn:
                seconds = seconds_of(watch, "cpu")
                turns[side].append(seconds["parts"] | {"step": seconds["cpu"]})
    names = ("step", *(part for part in PARTS if part != "update"))  # the weights stay as they are
    print(f"{'CPU seconds':<20}{'erv':>8}{'before':>8}{'ratio':>7}")
    for name in names:
        ours, before = (median(turn[name] for turn in turns[side]) for side in SIDES)
        print(f"{name:<20}{ours:>8.3f}{before:>8.3f}{before / ours:>7.2f}")
    each = [before["step"] / ours["step"] for ours, before in zip(*turns.values(), strict=True)]
    print(f"ratio of the steps, turn by turn: {', '.join(f'{ratio:.2f}' for ratio in each)}")
    prompts = prompts_of(trainers["erv"], arguments.steps + 1, grpo.prompts_per_step)
    _, ours = step(trainers["erv"], prompts, update=False)
    _, before = step(trainers["before"], prompts, replay=ours.completions, update=False)
    gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in agree(ours, before).items())
    print(f"largest differences on the same {len(ours.completions)} completions: {gaps}")


if __name__ == "__main__":
    with quiet_libraries():
        main()
