"""Where the time of a GRPO step goes, by part and by kind of operator, and what its products must take.

    python -m benchmarks.grpo_profile                  # make profile-grpo, where `make demo` has run
    python -m benchmarks.grpo_profile --workspace PATH --steps 3
    python -m benchmarks.grpo_profile --size tiny      # random weights and clips; needs no demo

The step is that of the demo: its cold start, clips, rewards and verifier, completions that end by themselves,
and an update of the weights. Three kinds of steps take turns: timed ones, whose medians are the CPU
milliseconds of the parts; profiled ones (`torch.profiler`), whose operators are summed by part and kind; and
one whose products are counted. The profiler slows each operator down by a microsecond or so, so it says how
the time is split, but the timed steps say how much it is.

- products: matrix products; attention: the fused kernels; softmax: with log-softmax and sums of exponentials
- copies: also gathering, filling and joining; views: operators that compute nothing
- rest: what the part takes besides: Python, autograd's engine, the start of operators. The profiler's own
  cost counts as the operators' time, so where there is little else, the rest comes out negative.

The floor of a part is its products and attention at the speed of this core, measured with a large product.
Not in the step: clipping of gradients, the schedule, metrics and checkpoints.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.grpo_measured import MeasuredTrainer, Stopwatch
from benchmarks.grpo_sizes import DATASET, SIZES, build_policy, write_clips
from benchmarks.grpo_ways import make_trainer, step
from benchmarks.grpo_worker import prompts_of, settings_for
from benchmarks.operators import NAMES, Counter, LabelledStopwatch, product_speed, time_by_kind
from benchmarks.workspace import demanded, positive, settings_demanded
from erv.determinism import seed_everything
from erv.training.common.allocator import keep_freed_memory
from erv.training.grpo.watch import quiet_libraries

# As they are named while they are timed, with the names that are printed.
GENERATION = {
    "encode": "towers, new clips",
    "prefill": "prompts",
    "decode": "decode, the model",
    "sampling": "decode, sampling",
    "generation": "decode, the rest",
}
TRAINING = {
    "rewards": "rewards",
    "reference scoring": "reference scoring",
    "policy scoring": "policy scoring",
    "backward": "backward pass",
    "update": "update",
    "other": "rest",
}
PARTS = (*GENERATION, *TRAINING)


@dataclass
class Profile:
    """A step in CPU seconds.

    Attributes:
        parts: median of the timed steps, by part.
        kinds: by part and kind of operator, per step.
        operations: floating-point operations of products and attention, by part.
        by_kind: the same, by kind.
        completions: number of completions in a step.
        tokens: their mean length.
    """

    parts: dict[str, float]
    kinds: dict[str, dict[str, float]]
    operations: dict[str, int]
    by_kind: dict[str, int]
    completions: int
    tokens: float


def watch_closely(trainer: MeasuredTrainer) -> None:
    """Times the prompts, the model and the sampling within generation, and the rewards."""
    rewards, sampler = trainer._calculate_rewards, trainer._sampler
    trainer._calculate_rewards = lambda *a, **k: trainer.watch.around("rewards", rewards)(*a, **k)
    trainer._sampler = lambda *a, **k: trainer.watch.around("sampling", sampler(*a, **k))
    forward = trainer.model.forward

    def timed(*arguments: Any, **inputs: Any) -> Any:
        if trainer.watch.innermost != "generation":
            return forward(*arguments, **inputs)
        part = "decode" if inputs.get("past_key_values") is not None else "prefill"
        with trainer.watch(part):
            return forward(*arguments, **inputs)

    trainer.model.forward = timed


def profile(trainer: MeasuredTrainer, prompts: int, steps: int) -> Profile:
    """Runs `steps` timed and `steps` profiled steps of `prompts` clips, after one that doesn't count."""
    watch_closely(trainer)
    turns: list[dict[str, float]] = []
    kinds = {part: dict.fromkeys(NAMES, 0.0) for part in PARTS}
    number = 0

    def next_step(watch: Stopwatch) -> Any:
        nonlocal number
        rows = prompts_of(trainer, number, prompts)
        number += 1
        return step(trainer, rows, watch=watch)[1]

    next_step(Stopwatch(parts=PARTS))
    for _ in range(steps):
        watch = Stopwatch(parts=PARTS)
        seen = next_step(watch)
        turns.append(watch.cpu)
        labelled = LabelledStopwatch(parts=PARTS)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
            next_step(labelled)
        for part, found in time_by_kind(recorded.events(), labelled).items():
            for kind, seconds in found.items():
                kinds[part][kind] += seconds / steps
    counter = Counter(PARTS)
    with counter.mode:
        seen = next_step(counter)
    return Profile(
        {part: median(turn[part] for turn in turns) for part in PARTS},
        kinds,
        counter.operations,
        counter.by_kind(),
        len(seen.completions),
        sum(map(len, seen.completions)) / len(seen.completions),
    )


def of_demo(root: Path, scratch: Path, steps: int) -> tuple[MeasuredTrainer, int]:
    """The trainer of the variant `erv` in a workspace where the demo has run, and its clips per step."""
    from erv.manifest import read_manifests
    from erv.policies import load_policy
    from erv.rewards import Shaping, build_rewards
    from erv.shards import ShardReader
    from erv.training.grpo.grpo import build_rows, variant_settings
    from erv.verifier.memory import SentenceMemory
    from erv.verifier.model import load_for_training

    demanded(root, "params.yaml", "models/policy/sft", "models/verifier", "data/shards", "data/manifest")
    settings = settings_demanded(root)
    seed_everything(0, settings.runtime.threads)
    section = settings.grpo.model_copy(update={"max_steps": steps, "epochs": None})
    readers = {name: ShardReader(root / "data/shards" / name) for name in settings.roles.train}
    manifests = read_manifests(root / "data/manifest", settings.roles.train)
    verifier = load_for_training(root / "models/verifier", settings.runtime, SentenceMemory())
    rewards = build_rewards(
        variant_settings(settings.variants, "erv").rewards,
        verifier,
        section.semantics,
        shaping=Shaping(**section.shaping.model_dump()),
    )
    policy = load_policy(root / "models/policy/sft")
    policy.model.config._name_or_path = str(root / "models/policy/sft")
    rows = build_rows(manifests.values(), readers)
    trainer = make_trainer(
        "erv", policy, readers, section, settings.runtime, scratch, ending=True, rows=rows, rewards=rewards
    )
    return trainer, section.prompts_per_step


def of_size(size: str, scratch: Path, steps: int) -> tuple[MeasuredTrainer, int]:
    """A trainer with random weights, clips of noise and a reward that costs nothing; its clips per step."""
    section, runtime = settings_for(size, 8, steps, "cpu", "float32")
    seed_everything(0, runtime.threads)
    policy = build_policy(SIZES[size])
    policy.save(scratch / "policy")
    policy.model.config._name_or_path = str(scratch / "policy")
    readers = {
        DATASET: write_clips(scratch / DATASET, SIZES[size], max(32, steps * section.prompts_per_step))
    }
    trainer = make_trainer("erv", policy, readers, section, runtime, scratch / "out")
    return trainer, section.prompts_per_step


def show(found: Profile, speed: float) -> None:
    """Prints the table, and what the step could take at best."""
    names = GENERATION | TRAINING
    total = sum(found.parts.values())
    print(
        f"a step of {found.completions} completions of {found.tokens:.0f} tokens on average;"
        " milliseconds of CPU"
    )
    kinds = "".join(f"{name:>12}" for name in (*NAMES, "rest"))
    print(f"{'part':<22}{'ms':>7}{'share':>7}{'floor':>7}{kinds}")
    for title, parts in (("generation", GENERATION), ("training", TRAINING), ("step", PARTS)):
        for part in parts if title != "step" else ():
            _line(names[part], found, [part], speed, total)
        _line(title, found, list(parts), speed, total)
    operations = sum(found.operations.values())
    print(
        f"floor: {operations / 1e9:.1f} GFLOP of products and attention at {speed / 1e9:.0f} GFLOP/s, the"
        f" speed of this core in a large product, are {operations / speed:.2f} s"
    )
    for kind, counted in found.by_kind.items():
        seconds = sum(found.kinds[part][kind] for part in PARTS)
        print(f"{kind}: {counted / 1e9:.1f} GFLOP in {seconds:.2f} s, {counted / seconds / 1e9:.0f} GFLOP/s")


def _line(title: str, found: Profile, parts: Sequence[str], speed: float, total: float) -> None:
    seconds = sum(found.parts[part] for part in parts)
    kinds: Mapping[str, float] = {name: sum(found.kinds[part][name] for part in parts) for name in NAMES}
    floor = sum(found.operations[part] for part in parts) / speed
    cells = [*kinds.values(), seconds - sum(kinds.values())]
    shares = "".join(f"{1000 * cell:>7.0f} {100 * cell / seconds if seconds else 0:>3.0f}%" for cell in cells)
    print(f"{title:<22}{1000 * seconds:>7.0f}{100 * seconds / total:>6.0f}%{1000 * floor:>7.0f}{shares}")


def main() -> int:
    """Reads the options, profiles and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--steps", type=positive, default=3, help="timed steps, and as many profiled ones")
    parser.add_argument("--size", choices=["tiny", "50m"], help="random weights of this size, no workspace")
    arguments = parser.parse_args()
    keep_freed_memory()
    number = 2 * arguments.steps + 2
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.size is not None:
            trainer, prompts = of_size(arguments.size, Path(scratch), number)
        else:
            trainer, prompts = of_demo(arguments.workspace, Path(scratch), number)
        show(profile(trainer, prompts, arguments.steps), product_speed())
    return 0


if __name__ == "__main__":
    with quiet_libraries():
        sys.exit(main())
