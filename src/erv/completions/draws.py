"""Sampling with random numbers that belong to a clip and a sample, whatever batch the clip is in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor

from erv.errors import EvaluationError
from erv.files import sha256_of_text


def numbers_of(seed: int, dataset: str, clip_id: str, sample: int, tokens: int) -> np.ndarray:
    """Numbers in [0, 1), float64 [tokens], which depend on nothing but the arguments."""
    digest = sha256_of_text(f"{seed}/{dataset}/{clip_id}/{sample}")
    return np.random.default_rng(int(digest, 16)).random(tokens)


class DrawnTokens(LogitsProcessor):
    """Leaves one token per row: the one whose share of [0, 1) contains the row's number for this step."""

    def __init__(
        self, numbers: np.ndarray, temperature: float, prompt: int, suppressed: Sequence[int] = ()
    ) -> None:
        """Takes the numbers of a whole batch.

        Args:
            numbers: float64 [rows, tokens], in [0, 1).
            temperature: above 0; logits are divided by it.
            prompt: length of the padded prompts.
            suppressed: ids that are never drawn.
        """
        self._numbers = torch.from_numpy(numbers)
        self._temperature, self._prompt = temperature, prompt
        self._suppressed = list(suppressed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] that leave one token per row."""
        scaled = scores.double() / self._temperature
        scaled[:, self._suppressed] = -torch.inf
        below = scaled.softmax(-1).cumsum(-1)
        total = below[:, -1:]
        if not bool(torch.isfinite(total).all()):
            raise EvaluationError(
                "the policy's probabilities are not finite; its weights are damaged, train it again"
            )
        numbers = self._numbers[:, input_ids.shape[1] - self._prompt].to(scores.device).unsqueeze(-1)
        # Rounding must not carry a number past the last token that has a probability.
        sought = torch.minimum(numbers * total, torch.nextafter(total, torch.zeros_like(total)))
        drawn = torch.searchsorted(below, sought, right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def draws_of(
    seed: int,
    dataset: str,
    clip_ids: Sequence[str],
    sample: int,
    *,
    tokens: int,
    temperature: float,
    prompt: int,
    suppressed: Sequence[int],
) -> DrawnTokens:
    """`DrawnTokens` of a batch, each clip with its own numbers.

    Args:
        seed: of all numbers.
        dataset: of the clips.
        clip_ids: of the rows.
        sample: which of a clip's completions this is; 0 is the one that counts.
        tokens: most tokens of a completion.
        temperature: see `DrawnTokens`.
        prompt: see `DrawnTokens`.
        suppressed: see `DrawnTokens`.
    """
    numbers = np.stack([numbers_of(seed, dataset, clip_id, sample, tokens) for clip_id in clip_ids])
    return DrawnTokens(numbers, temperature, prompt, suppressed)
