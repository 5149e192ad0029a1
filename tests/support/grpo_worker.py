"""Trains the tiny policy in one process or in several, as a stage does.

Command: `python -m tests.support.grpo_worker SPEC`.

SPEC is a JSON file: `folder` (holds `sft/` and `shards/`), `processes`, `runs`: a list of
`{"name", "settings", "recorded", "rows_per_pass", "stop_in", "optimizer", "credited"}`. Each run writes its
policy and metrics under `folder`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from erv.shards import ShardReader
from erv.training.common import ranks
from erv.training.grpo import grpo
from erv.training.grpo.trainer import OmniGRPOTrainer
from tests.support.runtime import RUNTIME, machine
from tests.support.tiny_grpo import Halves, letter_e, many_letters, settings, training_rows


class Counter:
    """State that each process keeps: how many completions its reward has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def reward(self, completions: list[Any], **columns: Any) -> list[float]:
        """A reward that depends on earlier completions."""
        self.seen += len(completions)
        return [float((self.seen + place) % 3) for place in range(len(completions))]

    def save(self, checkpoint: Path) -> None:
        """Saves the state in the checkpoint's folder."""
        (checkpoint / "seen").write_text(str(self.seen))

    def load(self, checkpoint: Path) -> None:
        """Loads the state from the checkpoint's folder."""
        self.seen = int((checkpoint / "seen").read_text())


class Recorded(OmniGRPOTrainer):
    """Generates the same completions with any number of processes: they depend only on step and row."""

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        own = len(prompt_ids)
        step, start = self.state.global_step, own * self.accelerator.process_index
        completions = []
        for row in range(start, start + own):
            generator = torch.Generator().manual_seed(1000 * step + row)
            length = 3 + row % 5
            completions.append(torch.randint(300, 350, (length,), generator=generator).tolist())
        return completions, None


class Stopping(OmniGRPOTrainer):
    """Stops every process in the middle of the same step."""

    stop_in = 0

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """TRL's training step, until the step to stop in."""
        if self.state.global_step == self.stop_in:
            raise KeyboardInterrupt
        return super().training_step(*args, **kwargs)


def train(folder: Path, run: dict[str, Any], processes: int) -> None:
    """Trains one run of the specification."""
    counter, seen = Counter(), []

    def on_metrics(metrics: dict[str, float], step: int) -> None:
        seen.append(metrics)

    rewards = [("letters", many_letters, 1.0), ("e", letter_e, 0.5)]
    if run.get("credited"):
        rewards.append(("halves", Halves(), 1.0))
    if run.get("counted"):
        rewards.append(("seen", counter.reward, 1.0))
    trainer, config = grpo.OmniGRPOTrainer, grpo.grpo_config

    def configured(*args: Any, **kwargs: Any) -> Any:
        built = config(*args, **kwargs)
        built.optim = run.get("optimizer", built.optim)
        return built

    grpo.grpo_config = configured
    if run.get("recorded"):
        grpo.OmniGRPOTrainer = Recorded
    elif "stop_in" in run:
        Stopping.stop_in = run["stop_in"]
        grpo.OmniGRPOTrainer = Stopping
    reader = {"mafw": ShardReader(folder / "shards" / "mafw")}
    try:
        grpo.train_grpo(
            folder / "sft",
            training_rows(reader),
            reader,
            rewards,
            settings(**run["settings"]),
            output=folder / run["name"],
            checkpoints=folder / f"{run.get('checkpoints', run['name'])}-checkpoints",
            on_metrics=on_metrics,
            seed=0,
            runtime=RUNTIME,
            machine=machine(accelerate="ddp", processes=processes, rows_per_pass=run.get("rows_per_pass")),
            kept=[counter],
        )
    except KeyboardInterrupt:
        if "stop_in" not in run:
            raise
    finally:
        grpo.grpo_config, grpo.OmniGRPOTrainer = config, trainer
    if ranks.is_main():
        (folder / f"{run['name']}.json").write_text(json.dumps(seen))


def main() -> None:
    """Trains all runs of the specification in order."""
    specification = json.loads(Path(sys.argv[1]).read_text())
    for run in specification["runs"]:
        train(Path(specification["folder"]), run, specification["processes"])


if __name__ == "__main__":
    main()
