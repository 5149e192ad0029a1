"""Whether two ways of writing follow the same model, where rounding may move a draw.

Both write the most probable tokens. As long as they agree, their rows have the same prefix; at the first
token that differs, the model itself says how probable either was. Rounding only turns tokens that were about
equally probable; a way that reads a wrong cache, position or weight writes one that was much less so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.gpu.bench import Bench

# A temperature at which the most probable token is drawn; vLLM takes none below it but 0.
TEMPERATURE = 0.01
# Nats between two tokens that may change places, by device. Half of what `precision` grants bfloat16: more
# than rounding and this temperature turn, and less than a token that was not looked for falls short by.
LIMITS = {"cuda": 0.15, "cpu": 1e-3}


def written_greedily(bench: Bench, write: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `write` writes with the most probable tokens, long [rows, completion]."""
    ours = bench.trainer
    before, ours.temperature = ours.temperature, TEMPERATURE
    try:
        return write()
    finally:
        ours.temperature = before


def gap(bench: Bench, one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of log-probability, in nats, between the first tokens that differ.

    Args:
        bench: has written `other` last, or any completions of the same prompts.
        one: completions, long [rows, completion].
        other: those of the other way, of the same shape.

    Returns:
        0 if no token differs.
    """
    differs = one != other
    rows = differs.any(1)
    if not bool(rows.any()):
        return 0.0
    first = differs.int().argmax(1, keepdim=True)
    scores = [bench.scores(completions).gather(1, first) for completions in (one, other)]
    return float((scores[0] - scores[1]).abs()[rows].max())
