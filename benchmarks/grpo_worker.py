"""One way of `benchmarks/grpo.py` in its own process: its peak memory, and its agreement with the others.

The first process writes the results of its first step to `--seen`; later ones first train on the same
completions and report how far apart they are. All of them also write their own completions in this step, so
that the peak is that of a whole step.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.grpo_flops import largest
from benchmarks.grpo_measured import PARTS, MeasuredTrainer, Seen, Stopwatch
from benchmarks.grpo_sizes import DATASET, SIZES, build_policy, write_clips
from benchmarks.grpo_ways import WAYS, agree, make_trainer, step
from erv.determinism import seed_everything
from erv.policies import Policy, load_policy
from erv.settings import GrpoSettings, RuntimeSettings, load_settings
from erv.shards import ShardReader

Row = dict[str, Any]
MIB = 2**20


def settings_for(size: str, group: int, steps: int, device: str, dtype: str) -> tuple[GrpoSettings, Any]:
    """The sections `grpo` and `runtime` of params.yaml for a size."""
    chosen, settings = SIZES[size], load_settings()
    grpo = settings.grpo.model_copy(
        update={
            "max_steps": steps,
            "prompts_per_step": chosen.prompts,
            "num_generations": group,
            "max_completion_length": chosen.completion,
            "num_iterations": 1,
            "gradient_checkpointing": False,
        }
    )
    return grpo, settings.runtime.model_copy(update={"device": device, "dtype": dtype})


def load_trainer(
    way: str, folder: Path, shards: Path, grpo: GrpoSettings, runtime: RuntimeSettings
) -> MeasuredTrainer:
    """A trainer of the policy in `folder` on the clips in `shards`."""
    policy = load_policy(folder, device=runtime.device)
    policy.model.config._name_or_path = str(folder)
    readers = {shards.name: ShardReader(shards)}
    return make_trainer(way, policy, readers, grpo, runtime, shards.parent / "checkpoints")


def prompts_of(trainer: MeasuredTrainer, turn: int, size: int) -> list[Row]:
    """The rows of a step: clips that no earlier step used."""
    return list(trainer.train_dataset.select(range(turn * size, (turn + 1) * size)))


def seconds_of(watch: Stopwatch, device: str) -> Row:
    """What a step took: wall clock, CPU, and parts (by CPU time on a CPU, by wall clock on a GPU)."""
    parts = watch.cpu if device == "cpu" else watch.wall
    return {
        "wall": sum(watch.wall.values()),
        "cpu": sum(watch.cpu.values()),
        "parts": {part: parts[part] for part in PARTS},
    }


def largest_batch(size: str, folder: Path, grpo: GrpoSettings, runtime: RuntimeSettings) -> Row:
    """How many clips a step of the stage's way can take on this GPU; 7b trains adapters."""
    lora = size == "7b"
    with tempfile.TemporaryDirectory() as scratch:
        reader = write_clips(Path(scratch) / DATASET, SIZES[size], 64)
        if lora:
            grpo = grpo.model_copy(update={"lora": grpo.lora.model_copy(update={"enabled": True})})
            policy = build_policy(SIZES[size], runtime.device)
        else:
            policy = load_policy(folder, device=runtime.device)
            policy.model.config._name_or_path = str(folder)
        found = search(policy, reader, grpo, runtime, Path(scratch) / "checkpoints")
    return {"prompts": found, "completions": found * grpo.num_generations, "adapters": lora}


def search(
    policy: Policy, reader: ShardReader, grpo: GrpoSettings, runtime: RuntimeSettings, output: Path
) -> int:
    """The largest number of clips of the reader with which a step does not run out of memory."""
    trainer = make_trainer("erv", policy, {DATASET: reader}, grpo, runtime, output)
    rows = [
        {"prompt": policy.processor.build_messages(), "clip": f"{DATASET}/{key}"} for key in reader.clip_ids
    ]

    def fits(prompts: int) -> bool:
        try:
            step(trainer, rows[:prompts])
        except torch.cuda.OutOfMemoryError:
            trainer.model.zero_grad()
            torch.cuda.empty_cache()
            return False
        return True

    return largest(fits, limit=len(rows))


def run(arguments: argparse.Namespace) -> Row:
    """Runs steps of one way: peak memory, seconds, agreement."""
    device = arguments.device
    grpo, runtime = settings_for(
        arguments.size, arguments.group, arguments.steps + 1, device, arguments.dtype
    )
    seed_everything(0, runtime.threads)
    if arguments.largest:
        return {"largest": largest_batch(arguments.size, arguments.policy, grpo, runtime)}
    trainer = load_trainer(arguments.way, arguments.policy, arguments.shards, grpo, runtime)
    before = Seen(**torch.load(arguments.seen)) if arguments.seen.is_file() else None
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    size = grpo.prompts_per_step
    _, seen = step(trainer, prompts_of(trainer, 0, size), replay=before.completions if before else None)
    if before is None:
        torch.save(vars(seen), arguments.seen)
    turns = [
        seconds_of(step(trainer, prompts_of(trainer, turn, size))[0], device)
        for turn in range(1, arguments.steps + 1)
    ]
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if device == "cpu"
        else torch.cuda.max_memory_allocated()
    )
    return {"peak_mib": round(peak / MIB), "gaps": agree(before, seen) if before else None, "turns": turns}


def main() -> None:
    """Prints the result as JSON, in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=list(WAYS), default="erv")
    parser.add_argument("--size", choices=list(SIZES), required=True)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--seen", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--largest", action="store_true")
    sys.stdout.write(json.dumps(run(parser.parse_args())) + "\n")


if __name__ == "__main__":
    main()
