"""Prompts as embeddings: text, and the tokens of the clips at their placeholders."""

from __future__ import annotations

from typing import Any

import torch

from erv.errors import TrainingError
from erv.training.grpo.shared_prompts import SharedPrompt

_NOT_EMBEDDED = ("attention_mask", "position_ids")


def check_embeds(policy: Any) -> None:
    """Refuses a policy that a plain language model can't continue from embeddings.

    Args:
        policy: the policy model, without wrappers.

    Raises:
        TrainingError: its positions are more than a count of tokens, which is all that vLLM does with
            embeddings; or its inner model has no `embed`.
    """
    name = type(policy).__name__
    if getattr(policy, "positions", None) is not None:
        raise TrainingError(
            f"grpo.generation is vllm, but {name} has positions of its own and vLLM counts the tokens of a"
            " prompt given as embeddings; set grpo.generation: transformers"
        )
    if not hasattr(policy.base_model, "embed"):
        raise TrainingError(
            f"grpo.generation is vllm, but the inner model of {name} has no method embed, which gives"
            " prompts as embeddings; add it (docs/policies.md), or set grpo.generation: transformers"
        )


@torch.no_grad()
def embedded_prompts(inner: Any, prompt: SharedPrompt) -> list[torch.Tensor]:
    """The prompt of each group, without padding: [length, hidden] each.

    Args:
        inner: the policy's model without its head. Its `embed` takes ids and clip features.
        prompt: whole prompts; `attention_mask` marks padding on either side.
    """
    inputs = {name: value for name, value in prompt.inputs.items() if name not in _NOT_EMBEDDED}
    embeddings = inner.embed(**inputs)
    mask = prompt.inputs["attention_mask"].bool()
    return [row[kept] for row, kept in zip(embeddings, mask, strict=True)]
