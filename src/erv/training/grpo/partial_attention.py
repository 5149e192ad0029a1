"""Attention to a part of the keys, in a form in which the parts of a row's keys can be joined.

The softmax over all keys follows from the parts and the logarithm of each part's sum of exponentials. Its
gradient in a part needs only the output and the sum over all keys (Dao et al., FlashAttention, 2022). On CPUs
the kernel behind `scaled_dot_product_attention` computes both; elsewhere plain matrix products do.
"""

from __future__ import annotations

import math

import torch

_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention to one part, and the logarithm of its sum of exponentials.

    Args:
        query: [B, heads, Q, D].
        key: [B, heads, K, D].
        value: [B, heads, K, D].
        scale: factor of the scores.
        causal: whether query i sees only keys up to i.
        mask: what is added to the scores, [B, 1, 1 or Q, K], or None.

    Returns:
        [B, heads, Q, D] and, float32, [B, heads, Q].
    """
    if _has_kernel(query, key):
        found: tuple[torch.Tensor, torch.Tensor] = _CPU(
            query, key, value, 0.0, causal, attn_mask=mask, scale=scale
        )
        return found
    scores = _scores(query, key, scale, causal)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1).to(value.dtype) @ value, scores.logsumexp(-1)


def attend_backward(
    gradient: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    output: torch.Tensor,
    log_sum: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value of a part.

    Args:
        gradient: of the output over all parts, [B, heads, Q, D].
        query: as for `attend`.
        key: as for `attend`.
        value: as for `attend`.
        output: over all parts, [B, heads, Q, D].
        log_sum: over all parts, [B, heads, Q].
        scale: as for `attend`.
        causal: as for `attend`.
    """
    if _has_kernel(query, key):
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _CPU_BACKWARD(
            gradient, query, key, value, output, log_sum, 0.0, causal, scale=scale
        )
        return found
    weights = (_scores(query, key, scale, causal) - log_sum.unsqueeze(-1)).exp()
    along = gradient.float() @ value.float().mT
    each = weights * (along - (gradient.float() * output.float()).sum(-1, keepdim=True)) * scale
    return (
        (each @ key.float()).to(query.dtype),
        (each.mT @ query.float()).to(key.dtype),
        (weights.mT @ gradient.float()).to(value.dtype),
    )


def join(
    first: torch.Tensor, first_sum: torch.Tensor, second: torch.Tensor, second_sum: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention to the keys of two parts, from what `attend` returned for each."""
    share = torch.sigmoid(second_sum - first_sum).unsqueeze(-1).to(first.dtype)
    return torch.lerp(first, second, share), torch.logaddexp(first_sum, second_sum)


def _has_kernel(query: torch.Tensor, key: torch.Tensor) -> bool:
    # With no query or no key, the kernel divides by zero and takes the process down.
    return query.device.type == "cpu" and query.shape[-2] > 0 and key.shape[-2] > 0


def _scores(query: torch.Tensor, key: torch.Tensor, scale: float, causal: bool) -> torch.Tensor:
    # Rounded to half precision, large scores would be off by more than the kernels of other attentions are.
    with torch.autocast(query.device.type, enabled=False):
        scores = (query.float() @ key.float().mT) * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return scores
