"""A trainer of adapters on a policy with random weights, and how to measure two sides of it in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.grpo_sizes import DATASET, SIZES, build_policy, write_clips
from erv.settings import load_settings
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.half_precision import frozen_linears_in
from erv.training.grpo import grpo
from erv.training.grpo.trainer import OmniGRPOTrainer

Row = dict[str, Any]
GROUP = 4
MIB = 2**20


class Bench:
    """A trainer of adapters on a policy of this size, and how to measure it."""

    def __init__(self, size: str, device: str, folder: Path, rounds: int) -> None:
        """Builds policy, clips and trainer; `rounds` turns are measured after one that is not."""
        self.device, self.rounds = torch.device(device), rounds
        chosen, settings = SIZES[size], load_settings()
        policy = build_policy(chosen, device)
        for module in policy.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        reader = write_clips(folder / DATASET, chosen, chosen.prompts)
        section = settings.grpo.model_copy(
            update={
                "max_steps": 1,
                "epochs": None,
                "num_iterations": 1,
                "prompts_per_step": chosen.prompts,
                "num_generations": GROUP,
                "max_completion_length": chosen.completion,
                "gradient_checkpointing": True,
                "lora": settings.grpo.lora.model_copy(update={"enabled": True, "dropout": 0.0}),
            }
        )
        on_gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16
        runtime = settings.runtime.model_copy(
            update={"device": device, "dtype": "bfloat16" if on_gpu else "float32"}
        )
        rows = [
            {"prompt": policy.processor.build_messages(), "clip": f"{DATASET}/{key}"}
            for key in reader.clip_ids
        ]
        self.section, self.runtime, self.machine = section, runtime, settings.machine
        config = grpo.grpo_config(
            section, 1, [("none", _none, 1.0)], policy, folder / "out", 0, runtime, settings.machine
        )
        config.generation_kwargs = {
            "suppress_tokens": [*policy.model.placeholder_ids, policy.model.generation_config.eos_token_id]
        }
        self.policy, self.clip, self.completion = policy, reader.get(reader.clip_ids[0]), chosen.completion
        self.rows = [row for row in rows for _ in range(GROUP)]
        self.trainer = OmniGRPOTrainer(
            model=policy.model,
            args=config,
            reward_funcs=[_none],
            train_dataset=grpo.order_rows(rows, 1, chosen.prompts, 0),
            processing_class=policy.processor.tokenizer,
            peft_config=grpo.lora_config(policy.model, section.lora),
            clip_features=ClipFeatures(policy_encoder(policy), {DATASET: reader}),
            question=policy.processor.question_inputs(),
        )
        self.trainer.model.train()
        model = self.trainer.model  # transformers renamed the switch
        enable = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable()
        for name, value in self.trainer.model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.01)

    def held_in_half(self) -> AbstractContextManager[None]:
        """Within, the frozen base is held in half precision."""
        return frozen_linears_in(self.dtype, [self.trainer.model])

    def turns(
        self,
        sides: Mapping[str, Callable[[], Any]],
        within: Mapping[str, Callable[[], AbstractContextManager[None]]] | None = None,
    ) -> tuple[Row, dict[str, Any]]:
        """Median seconds and peak memory of each side, in turns; and what each returned last.

        Args:
            sides: what to run, by name; the first is what the others are compared with.
            within: a context for a side, entered and left outside the measurement.
        """
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        peaks, results = dict.fromkeys(sides, 0), {}
        on_gpu = self.device.type == "cuda"
        for turn in range(self.rounds + 1):
            for name, run in sides.items():
                with (within or {}).get(name, nullcontext)():
                    if on_gpu:
                        torch.cuda.synchronize()
                        torch.cuda.reset_peak_memory_stats()
                    start = time.perf_counter()
                    results[name] = run()
                    if on_gpu:
                        torch.cuda.synchronize()
                        peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() // MIB)
                    if turn:
                        seconds[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        first = next(iter(medians.values()))
        ratios = {name: round(first / value, 2) for name, value in medians.items()}
        rounded = {name: round(value, 4) for name, value in medians.items()}
        return {"seconds": rounded, "times_faster": ratios, "peak_mib": peaks}, results

    def generate(self) -> torch.Tensor:
        """Completions of all rows from seed 0, long [rows, completion]; none ends early."""
        torch.manual_seed(0)
        prompts = [row["prompt"] for row in self.rows]
        bench = self.trainer
        keys = [row["clip"] for row in self.rows]
        clips = list(dict.fromkeys(keys))
        bench._table["train"] = {
            name: value.to(self.device) for name, value in bench._clip_features(clips).items()
        }
        index = torch.tensor([clips.index(key) for key in keys], device=self.device)
        with torch.no_grad(), bench._rows_of_clips(index):
            ids, images, fields = bench._tokenize_prompts(prompts)
            written, self.log_probs = bench._generate_single_turn(ids, images, fields, GROUP)
        self.ids = torch.tensor([[*prompt, *row] for prompt, row in zip(ids, written, strict=True)])
        self.index = index
        return torch.tensor(written)

    def scores(self, completions: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of completions after the prompts of the last `generate`, [rows, completion]."""
        ids = torch.cat([self.ids[:, : -self.completion], completions], dim=1).to(self.device)
        bench = self.trainer
        with torch.no_grad(), bench._rows_of_clips(self.index):
            found: torch.Tensor = bench._get_per_token_logps_and_entropies(
                bench.model, ids, torch.ones_like(ids), self.completion
            )[0]
        return found.float().cpu()

    def learn(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Log-probabilities of the completions in `ids`, and the gradients of the adapters."""
        bench, ids = self.trainer, self.ids.to(self.device)
        bench.model.zero_grad()
        with bench._rows_of_clips(self.index):
            log_probs = bench._get_per_token_logps_and_entropies(
                bench.model, ids, torch.ones_like(ids), self.completion
            )[0]
        log_probs.mean().backward()
        gradients = {name: p.grad.cpu() for name, p in bench.model.named_parameters() if p.grad is not None}
        return log_probs.detach().cpu(), gradients


def _none(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0] * len(completions)


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one.float() - other.float()).abs().max() / one.float().abs().max().clamp(min=1e-30))
