"""Tokens per second of generation: growing cache, static cache, CUDA graph, vLLM."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.figures import Context, Lacks
from erv.training.grpo import trainer
from erv.training.grpo.engine.agreement import agreement
from erv.training.grpo.engine.client import EngineClient
from erv.training.grpo.engine.lacks import vllm_fault
from erv.training.grpo.engine.start import start_vllm

GREEDY = 0.01  # a temperature at which the most probable token is drawn; vLLM takes none below it but 0


def decode(context: Context) -> None:
    """See `decode_row`; on a CPU every row must be equal, on a GPU rounding may move a draw."""
    row = decode_row(Bench(context.size, context.device, context.folder, context.rounds))
    context.figures.add(**row)
    context.figures.say(_speeds(row))
    if not context.on_gpu:
        everywhere = all(
            found == total for found, total in (text.split(" of ") for text in row["difference"].values())
        )
        context.figures.hold("the same tokens are sampled", everywhere)


def vllm(context: Context) -> None:
    """See `by_engine`."""
    bench = Bench(context.size, context.device, context.folder, context.rounds)
    fault = vllm_fault(Path(bench.machine.grpo.vllm_python))
    if fault is not None:
        raise Lacks(fault)
    with start_vllm(bench.policy, bench.section, bench.runtime, bench.machine) as engine:
        row = by_engine(bench, engine)
    context.figures.add(**row)
    context.figures.say(_speeds(row))


def _speeds(row: Row) -> str:
    speeds = row["tokens_per_second"]
    return ", ".join(f"{name} {speed:,.0f} tokens/s" for name, speed in speeds.items())


def decode_row(bench: Bench) -> Row:
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
