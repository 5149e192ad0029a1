"""Log-probabilities of completions under a policy or its reference: packed, or one prompt per completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from erv.training.grpo.grouped_attention import as_masks
from erv.training.grpo.packing import pack
from erv.training.grpo.token_scores import TokenScores

Tensors = dict[str, torch.Tensor]
FeaturesOf = Callable[[torch.Tensor], Tensors]  # clips of rows or tokens -> inputs


def score_packed(
    model: Any,
    inner: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    keep: int,
    clip_index: torch.Tensor,
    features_of: FeaturesOf,
) -> TokenScores:
    """Scores rows with one run of each prompt and no padding.

    Args:
        model: the policy with its wrappers; it takes `targets` (`token_scores.add_token_scores`).
        inner: the model without its head, prepared by `use_grouped_attention`.
        ids: prompts and completions, long [rows, P + keep].
        mask: [rows, P + keep]; 0 marks padding.
        positions: long [rows, P + keep], or [axes, rows, P + keep].
        keep: columns of the completions.
        clip_index: long [rows].
        features_of: the clips' features.

    Returns:
        Values [rows, keep]; 0 where a completion has no token.
    """
    packed = pack(ids, mask, positions, clip_index, keep)
    scores = model(
        input_ids=packed.input_ids,
        attention_mask=as_masks(inner, packed.layout),
        position_ids=packed.position_ids,
        targets=packed.targets,
        **features_of(packed.clip_index),
    )
    return TokenScores(
        packed.unpack(scores.log_probs, len(ids), keep), packed.unpack(scores.entropy, len(ids), keep)
    )


def score_plain(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    keep: int,
    clip_index: torch.Tensor,
    features_of: FeaturesOf,
) -> TokenScores:
    """The same with each prompt run for each completion, through TRL's fused head: the reference in tests."""
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-keep] = -100
    scores = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        labels=labels,
        fused_lm_head=True,
        **features_of(clip_index),
    )
    entropy = None if scores.entropy is None else scores.entropy[:, -keep:]
    return TokenScores(scores.log_probs[:, -keep:], entropy)
