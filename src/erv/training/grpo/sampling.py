"""Draws tokens from a policy's logits, with random numbers that belong to their row and step.

How seeds map to tokens: every generation has its own generator, seeded with the run's seed, the optimiser
step, the process and the mode (training or evaluation); where a step has several generations of a mode, as an
evaluation of many batches has, from the second on also with its number (`GenerationSeeds`). Before the first
token is drawn, it gives each row one number in [0, 1) per token. So a resumed run has the numbers that the
interrupted one would have had, whatever else has used torch's global generator, and a row has the same
numbers whether or not other rows have ended. They are made on the CPU and are the same for every device.

A token is found by inverting the cumulative distribution: one number per row, where `torch.multinomial` draws
one exponential per word of the vocabulary. On a CPU the sums are taken in order, so equal logits give equal
tokens. On CUDA, PyTorch promises neither the order of such sums nor equal logits in every run: where a number
lies within rounding of the border between two tokens, either may be drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor


class NotFiniteError(RuntimeError):
    """The logits to draw from are not finite."""


class GenerationSeeds:
    """The seeds of the generations of one process, each of them different.

    The first generation of a step has the seeds (run, step, process, mode). Further ones in the same step and
    mode have a number behind these, from 1: they must not draw the first one's tokens again.
    """

    def __init__(self, seed: int, process: int) -> None:
        """Takes the run's seed and the number of the process."""
        self._seed, self._process = seed, process
        self._latest: dict[bool, tuple[int, int]] = {}  # per mode: step, and number of the generation in it

    def begin(self, step: int, *, training: bool) -> None:
        """Counts a generation that begins.

        Args:
            step: optimiser steps done.
            training: whether it is for training, and not for an evaluation.
        """
        latest, number = self._latest.get(training, (step, -1))
        self._latest[training] = (step, number + 1 if latest == step else 0)

    def of(self, step: int, *, training: bool) -> list[int]:
        """The seeds of the generation that began last, for `uniform_numbers`; arguments as for `begin`."""
        latest, number = self._latest.get(training, (step, 0))
        again = [number] if latest == step and number else []
        return [self._seed, step, self._process, int(training), *again]


def uniform_numbers(seeds: Sequence[int], rows: int, tokens: int) -> torch.Tensor:
    """Numbers in [0, 1), float64 [rows, tokens], which depend on nothing but the arguments.

    Args:
        seeds: non-negative integers; every one of them matters.
        rows: rows to draw for.
        tokens: tokens per row.
    """
    mixed = int(np.random.SeedSequence(list(seeds)).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(mixed)
    return torch.rand(rows, tokens, generator=generator, dtype=torch.float64)


def completion_seeds(seeds: Sequence[int], rows: int) -> list[int]:
    """A seed for each row, below 2**32, for an engine that draws with random numbers of its own.

    Args:
        seeds: as in `uniform_numbers`.
        rows: how many.
    """
    state: list[int] = np.random.SeedSequence(list(seeds)).generate_state(rows, np.uint32).tolist()
    return state


def inverse_cdf(probabilities: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The token whose share of [0, 1) contains a row's number; never one of probability 0.

    Args:
        probabilities: [rows, vocabulary], non-negative; they need not add up to exactly 1.
        numbers: float64 [rows], in [0, 1).

    Returns:
        Long [rows].

    Raises:
        NotFiniteError: a probability is not finite.
    """
    below = probabilities.cumsum(-1, dtype=torch.float64)
    if not bool(torch.isfinite(below[:, -1]).all()):
        raise NotFiniteError("the policy's probabilities are not finite")
    if below.device.type != "cpu":
        below = ascending(below, probabilities)
    total = below[:, -1:]
    # Rounding must not carry the number past the last token that has a probability.
    sought = torch.minimum(numbers.unsqueeze(-1) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(below, sought, right=True).squeeze(-1)


def ascending(sums: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """Running sums that never fall, and don't change at tokens of probability 0.

    Sums taken in order are so already. Taken in parallel, each is rounded in its own way.

    Args:
        sums: float64 [rows, vocabulary].
        probabilities: what they are the sums of, [rows, vocabulary].
    """
    return sums.masked_fill(probabilities == 0, 0.0).cummax(-1).values


class Sampler:
    """Draws the tokens of a generation."""

    def __init__(
        self,
        numbers: torch.Tensor,
        temperature: float,
        suppressed: Sequence[int] = (),
        greedy: torch.Tensor | None = None,
    ) -> None:
        """Takes the random numbers of the whole generation.

        Args:
            numbers: from `uniform_numbers`.
            temperature: above 0; logits are divided by it.
            suppressed: ids that are never drawn.
            greedy: bool [rows of `numbers`], the rows that get the most probable token; None for none.
        """
        self._numbers = numbers
        self._temperature = temperature
        self._greedy = greedy
        self._suppressed = torch.tensor(list(suppressed), dtype=torch.long, device=numbers.device)

    def __call__(self, logits: torch.Tensor, rows: torch.Tensor, token: int) -> torch.Tensor:
        """Long [n], the next token of each row.

        Args:
            logits: [n, vocabulary].
            rows: long [n], the rows that these are, of those in `numbers`.
            token: how many tokens each row has already.

        Raises:
            NotFiniteError: the logits are not finite.
        """
        logits = logits.float() / self._temperature
        logits.index_fill_(-1, self._suppressed, -torch.inf)
        drawn = inverse_cdf(logits.softmax(-1), self._numbers[rows, token])
        return drawn if self._greedy is None else torch.where(self._greedy[rows], logits.argmax(-1), drawn)


class DrawnToken(LogitsProcessor):
    """Lets transformers' greedy `generate` pick what a sampler draws."""

    def __init__(self, sampler: Sampler, prompt: int) -> None:
        """Takes the sampler and the length of the prompts."""
        self._sampler = sampler
        self._prompt = prompt

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] that leave one token per row."""
        rows = torch.arange(len(scores), device=scores.device)
        drawn = self._sampler(scores, rows, input_ids.shape[1] - self._prompt)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn.unsqueeze(1), 0.0)
