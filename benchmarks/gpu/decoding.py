"""Tokens per second of generation: growing cache, static cache, CUDA graph, vLLM."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.gpu import greedy
from benchmarks.gpu.bench import Bench, Row
from benchmarks.gpu.figures import Context, Lacks
from erv.training.grpo import trainer
from erv.training.grpo.engine.agreement import agreement
from erv.training.grpo.engine.client import EngineClient
from erv.training.grpo.engine.lacks import vllm_fault
from erv.training.grpo.engine.start import start_vllm

_KL = 0.01  # nats per token between the engine and the policy, whose rounding differs


def decode(context: Context) -> None:
    """See `decode_row`; on a CPU every row must be equal, on a GPU rounding may move a draw."""
    row = decode_row(Bench(context.size, context.device, context.folder, context.rounds))
    gaps = row.pop("greedy")
    context.figures.add(**row)
    context.figures.say(_speeds(row))
    for name, found in gaps.items():
        context.figures.check(f"greedy tokens that differ, {name}", found, greedy.LIMITS[context.device])
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
    hold_engine(context, row)
    context.figures.say(_speeds(row))


def hold_engine(context: Context, row: Row) -> None:
    """Adds a row of `by_engine`, and holds that engine and policy are the same model."""
    found = row.pop("greedy")["vLLM"]
    context.figures.add(**row)
    context.figures.check("greedy tokens that differ, vLLM", found, greedy.LIMITS[context.device])
    context.figures.check("KL of the engine to the policy", row["difference"]["engine/kl"], _KL)


def _speeds(row: Row) -> str:
    speeds = row["tokens_per_second"]
    return ", ".join(f"{name} {speed:,.0f} tokens/s" for name, speed in speeds.items())


def decode_row(bench: Bench) -> Row:
    """Generation of all completions, with the base held in half precision on a GPU.

    Beside the figures, `greedy` has what `greedy.gap` says of each way.
    """
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
        best = {name: greedy.written_greedily(bench, side) for name, side in sides.items()}
        ours = best.pop("growing cache")
        row["greedy"] = {name: greedy.gap(bench, ours, other) for name, other in best.items()}
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
    ours = bench.trainer

    def written(by: EngineClient | None) -> torch.Tensor:
        ours._engine, engine._handed_over = by, None
        try:
            return bench.generate()
        finally:
            ours._engine = None

    with bench.held_in_half() if bench.device.type == "cuda" else nullcontext():
        row, found = bench.turns({"growing cache": lambda: written(None), "vLLM": lambda: written(engine)})
        sampled = torch.tensor(bench.log_probs)  # vLLM's turn was the last
        scores = bench.scores(found["vLLM"])
        mine, its = (greedy.written_greedily(bench, lambda by=by: written(by)) for by in (None, engine))
        row["greedy"] = {"vLLM": greedy.gap(bench, mine, its)}
    tokens = found["vLLM"].numel()
    row["tokens_per_second"] = {name: round(tokens / value, 1) for name, value in row["seconds"].items()}
    row["difference"] = {
        "greedy rows equal": f"{int((mine == its).all(1).sum())} of {len(mine)}",
        "log-probabilities": float((scores - sampled).abs().max()),
        **agreement(scores, sampled, torch.ones_like(scores), bench.section.generation_ratio_cap),
    }
    return row
