"""What frozen base, towers and checkpointing cost on a GPU, each in two ways that compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Row, far
from benchmarks.gpu.figures import Context
from erv.training.common.clip_features import policy_encoder

HALF = 0.1  # of the largest value: what a feature may lose in bfloat16
EQUAL = 1e-3  # of the largest value: rounding of sums in another order
EQUAL_HALF = 0.1  # the same under autocast to bfloat16


def _row_of(context: Context, measure: Callable[[Bench], Row]) -> Row:
    bench = Bench(context.size, context.device, context.folder, context.rounds)
    row = measure(bench)
    context.figures.add(**row)
    context.figures.say(", ".join(f"{name}: {times} times" for name, times in _others(row).items()))
    return row


def _others(row: Row) -> Mapping[str, float]:
    """How many times faster each side is than the first."""
    return dict(list(row["times_faster"].items())[1:])


def base(context: Context) -> None:
    """See `base_row`; the bits must be equal."""
    row = _row_of(context, base_row)
    context.figures.hold("bits equal", row["difference"]["bits equal"])


def towers(context: Context) -> None:
    """See `towers_row`."""
    row = _row_of(context, towers_row)
    context.figures.check("features", max(row["difference"].values()), HALF)


def checkpointing(context: Context) -> None:
    """See `checkpointing_row`."""
    row = _row_of(context, checkpointing_row)
    limit = EQUAL_HALF if context.on_gpu else EQUAL
    context.figures.check("log-probabilities and gradients", max(row["difference"].values()), limit)


def base_row(bench: Bench) -> Row:
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


def towers_row(bench: Bench) -> Row:
    """A clip through the towers."""
    encoders = {
        "float32": policy_encoder(bench.policy),
        "autocast": policy_encoder(bench.policy, bench.dtype),
    }
    row, found = bench.turns(
        {name: lambda encode=encode: encode(bench.clip) for name, encode in encoders.items()}
    )
    exact = found["float32"]
    return row | {"difference": {name: far(exact[name], found["autocast"][name]) for name in exact}}


def checkpointing_row(bench: Bench) -> Row:
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
            "log-probabilities": far(plain[0], shared[0]),
            "gradients": max(far(value, shared[1][name]) for name, value in plain[1].items()),
        }
    }
