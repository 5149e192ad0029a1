"""What the GPU's own ways save, and that they compute the same: `make gpu-proof`.

    python -m benchmarks.gpu_proof --size 0.5b --out benchmarks/gpu_proof.json

Runs on one CUDA device, on a policy with random weights and clips of noise. Each row measures two sides in
turns and prints seconds, their ratio, what they differ by, and peak memory:

- base: a token of generation with the frozen base under adapters in float32, which autocast casts in every
  call, and held in half precision
- towers: a clip through the towers in float32 and under autocast
- checkpointing: scoring and backward pass with checkpointed blocks, the prompt run per completion and shared
- decode: tokens with the growing cache, with the static one, and with the static one as a CUDA graph
- vllm: tokens with the growing cache, and by vLLM with the weights handed over each time; needs vLLM in
  `machine.grpo.vllm_python`, and its memory is not counted

Without a CUDA device it says so and exits with 1. `--device cpu` runs the same code without graphs, to test
it; its seconds mean nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.grpo_sizes import DATASET, SIZES, build_policy, write_clips
from benchmarks.workspace import positive
from erv.determinism import seed_everything
from erv.settings import load_settings
from erv.training.common.clip_features import ClipFeatures, policy_encoder
from erv.training.common.half_precision import frozen_linears_in
from erv.training.grpo import grpo, trainer
from erv.training.grpo.engine.agreement import agreement
from erv.training.grpo.engine.client import EngineClient
from erv.training.grpo.engine.lacks import vllm_fault
from erv.training.grpo.engine.start import start_vllm
from erv.training.grpo.trainer import OmniGRPOTrainer

Row = dict[str, Any]
GROUP = 4
MIB = 2**20
GREEDY = 0.01  # a temperature at which the most probable token is drawn; vLLM takes none below it but 0


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
        self.trainer.model.activation_checkpointing_enable()
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


def _far(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one.float() - other.float()).abs().max() / one.float().abs().max().clamp(min=1e-30))


def base(bench: Bench) -> Row:
    """One token per row through the language model: weights cast in every call, against weights held."""
    model = bench.policy.model
    noise = torch.randn(len(bench.rows), 1, model.config.text_config.hidden_size, device=bench.device)

    def token() -> torch.Tensor:
        with torch.no_grad(), torch.autocast(bench.device.type, bench.dtype):
            for _ in range(8):
                found = model.get_decoder()(inputs_embeds=noise, use_cache=False).last_hidden_state
        return found.float().cpu()

    row, found = bench.turns(
        {"cast in every call": token, "held": token}, within={"held": bench.held_in_half}
    )
    return row | {"difference": {"bits equal": torch.equal(*found.values())}}


def towers(bench: Bench) -> Row:
    """A clip through the towers."""
    encoders = {
        "float32": policy_encoder(bench.policy),
        "autocast": policy_encoder(bench.policy, bench.dtype),
    }
    row, found = bench.turns(
        {name: lambda encode=encode: encode(bench.clip) for name, encode in encoders.items()}
    )
    exact = found["float32"]
    return row | {"difference": {name: _far(exact[name], found["autocast"][name]) for name in exact}}


def checkpointing(bench: Bench) -> Row:
    """Scoring and backward pass under checkpointing."""
    bench.generate()

    def with_prompts(shared: bool) -> Any:
        bench.trainer.share_prompts = shared
        try:
            return bench.learn()
        finally:
            bench.trainer.share_prompts = True

    row, found = bench.turns(
        {
            "prompt per completion": lambda: with_prompts(False),
            "prompt shared": lambda: with_prompts(True),
        }
    )
    plain, shared = found.values()
    return row | {
        "difference": {
            "log-probabilities": _far(plain[0], shared[0]),
            "gradients": max(_far(value, shared[1][name]) for name, value in plain[1].items()),
        }
    }


def decode(bench: Bench) -> Row:
    """Generation of all completions, with the base held in half precision on a GPU."""
    write = trainer.write_with_static_cache

    def written(static: bool, graph: bool = False) -> torch.Tensor:
        bench.trainer.static_decode = static
        trainer.write_with_static_cache = lambda *args, **options: write(*args, **options, graph=graph)
        try:
            return bench.generate()
        finally:
            bench.trainer.static_decode, trainer.write_with_static_cache = False, write

    sides: dict[str, Callable[[], torch.Tensor]] = {
        "growing cache": lambda: written(False),
        "static cache": lambda: written(True),
    }
    if bench.device.type == "cuda":
        sides["CUDA graph"] = lambda: written(True, True)
    on_gpu = bench.device.type == "cuda"
    with bench.held_in_half() if on_gpu else nullcontext():
        row, found = bench.turns(sides)
    first = found["growing cache"]
    tokens = first.numel()
    row["tokens_per_second"] = {name: round(tokens / value, 1) for name, value in row["seconds"].items()}
    # Sampled with the same random numbers: where rounding moves a draw, a row differs from there on.
    row["difference"] = {
        f"rows equal, {name}": f"{int((other == first).all(1).sum())} of {len(first)}"
        for name, other in found.items()
        if name != "growing cache"
    }
    return row


def vllm(bench: Bench) -> Row:
    """Generation by vLLM, or why it can't be measured."""
    fault = vllm_fault(Path(bench.machine.grpo.vllm_python))
    if fault is not None:
        return {"not measured": fault}
    with start_vllm(bench.policy, bench.section, bench.runtime, bench.machine) as engine:
        return by_engine(bench, engine)


def by_engine(bench: Bench, engine: EngineClient) -> Row:
    """The same for any engine: speed, equal rows, and log-probabilities against the trainer's own."""
    ours, temperature = bench.trainer, bench.trainer.temperature

    def written(by: EngineClient | None) -> torch.Tensor:
        ours._engine, engine._handed_over = by, None
        try:
            return bench.generate()
        finally:
            ours._engine = None

    with bench.held_in_half() if bench.device.type == "cuda" else nullcontext():
        row, found = bench.turns({"growing cache": lambda: written(None), "vLLM": lambda: written(engine)})
        sampled, ids = torch.tensor(bench.log_probs), bench.ids.to(bench.device)  # vLLM's turn was the last
        with torch.no_grad(), ours._rows_of_clips(bench.index):
            scores, _, _ = ours._get_per_token_logps_and_entropies(
                ours.model, ids, torch.ones_like(ids), bench.completion
            )
        ours.temperature = GREEDY
        equal = written(None) == written(engine)
        ours.temperature = temperature
    tokens = found["vLLM"].numel()
    row["tokens_per_second"] = {name: round(tokens / value, 1) for name, value in row["seconds"].items()}
    scores = scores.cpu()
    row["difference"] = {
        "greedy rows equal": f"{int(equal.all(1).sum())} of {len(equal)}",
        "log-probabilities": float((scores - sampled).abs().max()),
        **agreement(scores, sampled, torch.ones_like(scores), bench.section.generation_ratio_cap),
    }
    return row


ROWS: dict[str, Callable[[Bench], Row]] = {
    "towers": towers,
    "base": base,
    "checkpointing": checkpointing,
    "decode": decode,
}


def prove(size: str, device: str, rounds: int) -> Row:
    """All rows of a size on a device."""
    seed_everything(0, load_settings().runtime.threads)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(size, device, Path(folder), rounds)
        name = (
            torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU: its seconds mean nothing"
        )
        found: Row = {"size": size, "device": name, "torch": torch.__version__, "rows": {}}
        for title, measure in (ROWS | ({"vllm": vllm} if bench.device.type == "cuda" else {})).items():
            found["rows"][title] = measure(bench)
            print(f"{title}: {json.dumps(found['rows'][title])}", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Prints and writes the figures; 1 without a GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="0.5b")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rounds", type=positive, default=5, help="measured turns of each side")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print(
            "error: there is no CUDA device here; run make gpu-proof where there is one, with CUDA's torch",
            file=sys.stderr,
        )
        return 1
    found = prove(chosen.size, chosen.device, chosen.rounds)
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
