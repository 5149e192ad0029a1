"""Floating-point operations of scoring, peaks of devices, and the search for the largest batch.

A forward pass costs 2 operations per weight and token in the blocks of the language model, 2 per weight of
the head and scored token, and 4 x layers x width per pair of a token and one that it attends to; a backward
pass costs twice that. Only the language model counts, not towers and projectors, and only what a way really
runs: a shared prompt counts once. Utilisation is then the operations per second of the part, divided by the
device's peak for dense bfloat16 products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# TFLOP/s of dense bfloat16 products, from the vendor; the first name contained in the device's name counts.
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
}


@dataclass(frozen=True)
class Language:
    """Sizes of a language model: weights of its blocks and of its head, layers, width of its attention."""

    blocks: int
    head: int
    layers: int
    width: int

    @classmethod
    def of(cls, model: Any) -> Language:
        """The sizes of a policy's language model."""
        config = model.config.text_config
        blocks = sum(weight.numel() for weight in model.get_decoder().layers.parameters())
        return cls(
            blocks, config.vocab_size * config.hidden_size, config.num_hidden_layers, config.hidden_size
        )

    def forward(self, tokens: int, scored: int, pairs: int) -> int:
        """Operations of a forward pass, from tokens run, tokens scored and pairs attended."""
        return 2 * self.blocks * tokens + 2 * self.head * scored + 4 * self.layers * self.width * pairs

    def update(self, work: Work, *, frozen: bool) -> int:
        """Operations of a forward and a backward pass.

        Args:
            work: what goes through them.
            frozen: whether only adapters train: no weight of blocks and head then has a gradient, so their
                backward pass costs as much as the forward one instead of twice as much. The adapters
                themselves, under 1% of a block, don't count.
        """
        products = self.forward(work.tokens, work.scored, 0)
        attention = self.forward(0, 0, work.pairs)
        return (2 if frozen else 3) * products + 3 * attention


@dataclass(frozen=True)
class Work:
    """The work of the language model in scoring a step's completions.

    Attributes:
        tokens: tokens that go through the blocks.
        scored: tokens that get a log-probability.
        pairs: pairs of a token and one that it attends to, itself included.
    """

    tokens: int
    scored: int
    pairs: int

    @classmethod
    def of(cls, clips: int, group: int, prompt: int, completion: int, *, shared: bool) -> Work:
        """The work of `clips` x `group` completions, with the prompt run once per clip or per completion."""
        rows, length = clips * group, prompt + completion
        whole = length * (length + 1) // 2
        if not shared:
            return cls(rows * length, rows * completion, rows * whole)
        # The last token of the prompt is run with the completion.
        once = prompt - 1
        before = once * (once + 1) // 2
        return cls(
            clips * once + rows * (completion + 1),
            rows * completion,
            clips * before + rows * (whole - before),
        )


def peak_of(device: str) -> float | None:
    """Peak of a device in TFLOP/s, dense bfloat16; None if the table does not have it."""
    return next((peak for name, peak in PEAKS.items() if name.lower() in device.lower()), None)


def largest(fits: Callable[[int], bool], limit: int = 4096) -> int:
    """The largest number from 1 to `limit` that fits, 0 if none does; all smaller ones must fit too."""
    low, high = 0, 1
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
