"""The GRPO step as it was before prompts were shared without copies: the other side of `benchmarks/grpo.py`.

Prompts run once per clip, but their keys and values are repeated for every completion. Completions come from
transformers' `generate` with `torch.multinomial`, ended rows stay in the batch, and scoring runs on padded
rows with TRL's fused head.
"""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel
from trl.models import unwrap_model_for_generation

from benchmarks.grpo_measured import MeasuredTrainer
from erv.training.grpo.growing_cache import GrowingLayer
from erv.training.grpo.shared_prompts import SharedPrompt
from erv.training.grpo.token_scores import TokenScores


class BeforeTrainer(MeasuredTrainer):
    """One batch, towers and prompt once per clip, keys and values of the prompt for every completion."""

    def _repeated_prompt(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, clip_index: torch.Tensor
    ) -> Any:
        """The cache of all but the last prompt token, repeated for the rows; gradients flow through."""
        prompt: SharedPrompt = self._prompt_of(model, ids[:, :-1], mask[:, :-1], clip_index)
        inner: PreTrainedModel = self._inner(model)
        cache = inner(**prompt.inputs, use_cache=True).past_key_values
        for layer in cache.layers:
            layer.keys = layer.keys.index_select(0, prompt.group_of_row)
            layer.values = layer.values.index_select(0, prompt.group_of_row)
        return cache

    def _write(
        self, prompt_ids: list[list[int]], images: Any, fields: Any, generations: int, tools: bool = False
    ) -> tuple[list[list[int]], Any]:
        assert self._clip_index is not None
        ids = torch.tensor(prompt_ids, device=self.accelerator.device)
        mask = torch.ones_like(ids)
        with (
            unwrap_model_for_generation(
                self.model_wrapped, self.accelerator, generation_kwargs=self.generation_kwargs
            ) as model,
            torch.no_grad(),
            self.accelerator.autocast(),
        ):
            cache = self._repeated_prompt(model, ids, mask, self._clip_index)
            cache.layers = [
                GrowingLayer(layer.keys, layer.values, self.max_completion_length) for layer in cache.layers
            ]
            # transformers 5.24 renames the argument, and its own check then takes the new name for a typo.
            with patch.object(model, "_validate_model_kwargs"):
                output = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    past_key_values=cache,
                    generation_config=self.generation_config,
                )
        return [self._until_end(row) for row in output[:, ids.size(1) :].tolist()], None

    def _score(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, clip_index: torch.Tensor
    ) -> TokenScores:
        prompt = ids.size(1) - keep
        labels = ids.masked_fill(mask == 0, -100)[:, prompt - 1 :]
        labels[:, 0] = -100
        scores = model(
            input_ids=ids[:, prompt - 1 :],
            attention_mask=mask,
            position_ids=self._positions(model, ids, mask)[..., prompt - 1 :],
            past_key_values=self._repeated_prompt(model, ids[:, :prompt], mask[:, :prompt], clip_index),
            labels=labels,
            fused_lm_head=True,
        )
        return TokenScores(scores.log_probs, scores.entropy)
