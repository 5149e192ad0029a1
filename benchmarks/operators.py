"""Operators of PyTorch by kind, their time by part of a program, and the work that a part must do."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.grpo_measured import Stopwatch

LABEL = "part: "
# The names of operators without `aten::`; what is in no other kind computes something for each element.
_KINDS = {
    "products": "mm addmm bmm baddbmm mv dot convolution _convolution mkldnn_convolution",
    "attention": "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu"
    " _scaled_dot_product_flash_attention_for_cpu_backward",
    "softmax": "softmax _softmax _softmax_backward_data log_softmax _log_softmax _log_softmax_backward_data"
    " logsumexp logaddexp logcumsumexp",
    "copies": "copy_ _to_copy to clone contiguous cat stack index index_select index_put_ _index_put_impl_"
    " _unsafe_index gather scatter scatter_ fill_ zero_ masked_fill_ embedding embedding_dense_backward"
    " repeat repeat_interleave zeros zeros_like full full_like ones_like new_zeros new_full",
    # They compute nothing: what they take is the price of a call.
    "views": "view _unsafe_view as_strided reshape _reshape_alias transpose t permute expand slice select"
    " narrow squeeze unsqueeze flatten unflatten split chunk unbind movedim detach detach_ alias empty"
    " empty_like empty_strided new_empty resize_ resolve_conj resolve_neg linear matmul item"
    " _local_scalar_dense is_nonzero result_type lift_fresh set_",
}
KINDS: Mapping[str, frozenset[str]] = {kind: frozenset(names.split()) for kind, names in _KINDS.items()}
ELEMENTWISE = "elementwise"
NAMES = (*KINDS, ELEMENTWISE)


def kind_of(operator: str) -> str | None:
    """The kind of an operator by its name in a profile; None for what is not an operator."""
    name = operator.removeprefix("aten::")
    if name == operator:
        return None
    return next((kind for kind, names in KINDS.items() if name in names), ELEMENTWISE)


class LabelledStopwatch(Stopwatch):
    """A stopwatch whose parts are seen in a profile too."""

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Counts the time within for this part, and marks it."""
        with super().__call__(part), torch.profiler.record_function(f"{LABEL}{part}"):
            yield


class Counter(Stopwatch):
    """Counts the floating-point operations of each part, in `operations`, instead of its time.

    Products and attention count, 2 operations for a product and a sum; attention also for pairs that a mask
    hides.
    """

    def __init__(self, parts: Iterable[str]) -> None:
        super().__init__(parts=parts)
        self.operations = dict.fromkeys(self.cpu, 0)
        self._counted = 0
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        self.mode = FlopCounterMode(
            display=False,
            custom_mapping={
                attention: lambda query, key, value, *_, out_shape=None, **__: sdpa_flop_count(
                    query, key, value
                ),
                backward: lambda gradient, query, key, value, *_, out_shape=None, **__: (
                    sdpa_backward_flop_count(gradient, query, key, value)
                ),
            },
        )

    def by_kind(self) -> dict[str, int]:
        """The operations of products and of attention."""
        found = {"products": 0, "attention": 0}
        for operator, counted in self.mode.get_flop_counts()["Global"].items():
            found["attention" if "attention" in str(operator) else "products"] += counted
        return found

    def _charge(self) -> None:
        total = self.mode.get_total_flops()
        if self._open:
            self.operations[self._open[-1]] += total - self._counted
        self._counted = total


def time_by_kind(events: Iterable[Any], watch: Stopwatch) -> dict[str, dict[str, float]]:
    """CPU seconds of the operators, by part and kind.

    The profile has wall time. Where other processes took the core from this one, an operator's share of them
    is taken off again: its time counts by CPU seconds per wall second of its part.

    Args:
        events: of a profile, while `watch`, a `LabelledStopwatch`, was running.
        watch: its seconds.
    """
    found: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(NAMES, 0.0))
    parts: dict[int, str | None] = {}

    def part_of(event: Any) -> str | None:
        chain = []
        part = None
        while event is not None:
            if event.id in parts:
                part = parts[event.id]
                break
            chain.append(event.id)
            if event.name.startswith(LABEL):
                part = event.name.removeprefix(LABEL)
                break
            event = event.cpu_parent
        parts.update(dict.fromkeys(chain, part))
        return part

    for event in events:
        kind, part = kind_of(event.name), part_of(event)
        if kind is not None and part is not None:
            share = watch.cpu[part] / watch.wall[part] if watch.wall[part] else 0.0
            found[part][kind] += event.self_cpu_time_total / 1e6 * min(1.0, share)
    return dict(found)


def product_speed(size: int = 1024, rounds: int = 9) -> float:
    """Floating-point operations per CPU second of a large square product in float32; the best of `rounds`."""
    one, other = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        one @ other
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best
