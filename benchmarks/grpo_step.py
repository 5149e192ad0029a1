"""What a GRPO step costs when clips are encoded once and prompts are shared, against the plain way.

    python benchmarks/grpo_step.py --policy models/policy/sft --shards data/shards/mafw --steps 4

Without `--policy` and `--shards` it builds the tiny policy (untrained: its completions run to the full
length) and random clips. All ways train the same rows from the same weights in one process, in turns, one
step each, so that the ratio holds on a busy machine too; the first turn is a warm-up and not counted.

- raw: towers, projectors and prompt run for every completion in every pass, as without features
- features: towers once per clip, projectors once per clip and pass
- shared: besides, the prompt once per clip and pass (what the stage does)
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback

from erv.determinism import seed_everything
from erv.policies import Policy, load_policy
from erv.policies.tiny import build_tiny_policy
from erv.policy_settings import GrpoSettings
from erv.prompts import format_completion
from erv.settings import RuntimeSettings, load_settings
from erv.shards import Clip, ShardReader, ShardWriter
from erv.training import grpo_run
from erv.training.clip_features import ClipFeatures, policy_encoder
from erv.training.grpo import OmniGRPOTrainer

Tensors = dict[str, torch.Tensor]


class RawTrainer(OmniGRPOTrainer):
    """Takes prepared clips instead of features, and hands every row a clip of its own."""

    def _features_of(self, clip_index: torch.Tensor) -> Tensors:
        table = self._table[self._mode]
        return {name: value[clip_index] for name, value in table.items()} | self._question


def letters(completions: list[Any], **columns: Any) -> list[float]:
    """A reward that costs nothing."""
    return [float(len(set(completion[0]["content"]))) for completion in completions]


def raw_clips(policy: Policy, readers: dict[str, ShardReader]) -> Callable[[Sequence[str]], Tensors]:
    """Prepared pixels and log-mel, kept like features: decoding is not what is compared."""

    def prepare(clip: Clip) -> Tensors:
        return policy.processor.prepare_clip(clip.frames, clip.audio, clip.sample_rate)

    return ClipFeatures(prepare, readers)


def make_trainer(
    way: str, folder: Path, readers: dict[str, ShardReader], settings: GrpoSettings, runtime: RuntimeSettings
) -> OmniGRPOTrainer:
    """A trainer that goes one of the ways."""
    policy = load_policy(folder)
    policy.model.config._name_or_path = str(folder)
    clips = raw_clips(policy, readers) if way == "raw" else ClipFeatures(policy_encoder(policy), readers)
    rows = [
        {"prompt": policy.processor.build_messages(), "clip": f"{name}/{clip_id}"}
        for name, reader in readers.items()
        for clip_id in reader.clip_ids
    ]
    rewards = [("letters", letters, 1.0)]
    steps = grpo_run.total_steps(settings, len(rows))
    output = Path(tempfile.mkdtemp())
    trainer = (RawTrainer if way == "raw" else OmniGRPOTrainer)(
        model=policy.model,
        args=grpo_run.grpo_config(settings, steps, rewards, policy, output, 0, runtime),
        reward_funcs=[letters],
        train_dataset=grpo_run.order_rows(rows, steps, settings.prompts_per_step, 0),
        processing_class=policy.processor.tokenizer,
        clip_features=clips,
        question=policy.processor.question_inputs(),
        share_prompts=way == "shared",
    )
    trainer.remove_callback(PrinterCallback)
    trainer.create_optimizer()
    return trainer


def step(trainer: OmniGRPOTrainer, rows: list[dict[str, Any]]) -> float:
    """Generation, scoring, backward pass and update; returns CPU seconds of this process."""
    began = time.process_time()
    trainer.current_gradient_accumulation_steps = 1
    trainer._buffered_inputs = None
    trainer.training_step(trainer.model, rows, None)
    trainer.optimizer.step()
    trainer.model.zero_grad()
    return time.process_time() - began


def synthetic(folder: Path) -> tuple[Path, Path]:
    """The tiny policy and 32 random clips."""
    words = ["the", "person", "smiles", "and", "a", "loud", "voice", "while", "tears", "run", "over", "faces"]
    texts = [format_completion(" ".join(words[n % 9 :]) + ".", "happiness") for n in range(60)]
    Policy(*build_tiny_policy(texts, seed=0)).save(folder / "policy")
    random = np.random.default_rng(0)
    with ShardWriter(folder / "mafw", clips_per_shard=32) as writer:
        for number in range(32):
            frames = random.integers(0, 255, (8, 64, 64, 3), dtype=np.uint8)
            audio = random.integers(-9000, 9000, 32000).astype(np.int16)
            writer.add(Clip(f"{number:05d}", frames, audio, 16000))
    return folder / "policy", folder / "mafw"


def main() -> None:
    """Prints a table of seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--policy", type=Path)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    settings = load_settings()
    runtime = settings.runtime.model_copy(update={"device": "cpu"})
    seed_everything(0, runtime.threads)
    with tempfile.TemporaryDirectory() as scratch:
        policy, shards = arguments.policy, arguments.shards
        if policy is None or shards is None:
            policy, shards = synthetic(Path(scratch))
        readers = {shards.name: ShardReader(shards)}
        chosen = settings.grpo.model_copy(update={"max_steps": arguments.steps + 1})
        trainers = {
            way: make_trainer(way, policy, readers, chosen, runtime) for way in ("raw", "features", "shared")
        }
        seconds: dict[str, list[float]] = defaultdict(list)
        size = chosen.prompts_per_step
        for turn in range(arguments.steps + 1):
            for way, trainer in trainers.items():
                dataset = trainer.train_dataset.select(range(turn * size, (turn + 1) * size))
                rows = [row for row in dataset for _ in range(chosen.num_generations)]
                taken = step(trainer, rows)
                if turn:
                    seconds[way].append(taken)
    base = median(seconds["raw"])
    group, threads = chosen.num_generations, runtime.threads
    print(f"{size} prompts x {group} completions, {threads} thread(s), CPU seconds a step")
    for way, values in seconds.items():
        print(f"{way:<10}{median(values):6.2f} s   {base / median(values):4.2f}x")


if __name__ == "__main__":
    main()
