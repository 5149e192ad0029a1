"""A trainer whose parts are timed, and what it saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from erv.training.grpo.trainer import OmniGRPOTrainer

Tensors = dict[str, torch.Tensor]

PARTS = ("encode", "generation", "reference scoring", "policy scoring", "backward", "update", "other")
SMALL = 10_000  # gradients of weights up to this size are compared


class Stopwatch:
    """Seconds by part of a step; time in a nested part counts only for that part."""

    def __init__(self, device: str = "cpu", parts: Iterable[str] = PARTS) -> None:
        self.wall = dict.fromkeys(parts, 0.0)
        self.cpu = dict.fromkeys(self.wall, 0.0)
        self._gpu = device.startswith("cuda")
        self._open: list[str] = []
        self._since = (0.0, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Counts the time within for this part."""
        self._charge()
        self._open.append(part)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    @property
    def innermost(self) -> str | None:
        """The part that counts now."""
        return self._open[-1] if self._open else None

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its calls timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(part):
                return function(*args, **kwargs)

        return timed

    def _charge(self) -> None:
        if self._gpu:
            torch.cuda.synchronize()  # kernels run on after their call has returned
        now = (time.perf_counter(), time.process_time())
        if self._open:
            self.wall[self._open[-1]] += now[0] - self._since[0]
            self.cpu[self._open[-1]] += now[1] - self._since[1]
        self._since = now


@dataclass
class Seen:
    """The results of a step, to compare ways.

    Attributes:
        completions: token ids in the order of the rows.
        log_probs: log-probabilities by "policy" or "reference", and by completion.
        loss: loss of the whole step.
        gradients: gradients of the small weights.
    """

    completions: list[list[int]] = field(default_factory=list)
    log_probs: dict[str, dict[tuple[int, ...], torch.Tensor]] = field(default_factory=dict)
    loss: float = 0.0
    gradients: Tensors = field(default_factory=dict)


class MeasuredTrainer(OmniGRPOTrainer):
    """The stage's trainer with a stopwatch around its parts."""

    prompts_per_pass: int | None = None  # None: all of a step
    watch: Stopwatch
    seen: Seen
    replay: list[list[int]] | None = None  # completions to use instead of the written ones

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[list[list[int]], Any]:
        with self.watch("generation"):
            written, extra = self._write(*args, **kwargs)
        if self.replay is not None:
            written = [self.replay.pop(0) for _ in written]
        self.seen.completions += written
        return written, extra

    def _write(self, *args: Any, **kwargs: Any) -> tuple[list[list[int]], Any]:
        return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        which = "policy" if torch.is_grad_enabled() else "reference"
        with self.watch(f"{which} scoring"):
            found = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        rows = zip(input_ids[:, -logits_to_keep:].tolist(), found[0].detach().float().cpu(), strict=True)
        self.seen.log_probs.setdefault(which, {}).update({tuple(ids): values for ids, values in rows})
        return found
