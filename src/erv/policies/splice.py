"""Putting what a policy sees and hears at the placeholders of its prompts."""

from __future__ import annotations

import torch


def splice(
    embeddings: torch.Tensor,
    input_ids: torch.Tensor,
    tokens: torch.Tensor,
    token_id: int,
    clip_index: torch.Tensor,
    modality: str,
) -> torch.Tensor:
    """Puts each row's clip at its placeholders; a row without any placeholder takes none.

    Args:
        embeddings: [rows, length, hidden].
        input_ids: long [rows, length].
        tokens: [clips, tokens, hidden].
        token_id: the placeholder.
        clip_index: long [rows], the clip that each row shows.
        modality: for the message.

    Raises:
        ValueError: a row has another number of placeholders than the clip has tokens.
    """
    mask = input_ids == token_id
    counts = mask.sum(dim=1)
    rows = counts > 0
    expected = tokens.shape[1]
    if bool((counts[rows] != expected).any()):
        found = sorted(set(counts[rows].tolist()))
        raise ValueError(f"a row has {found} {modality} placeholders, expected 0 or {expected}")
    source = tokens[clip_index[rows]].to(embeddings.dtype)
    return embeddings.masked_scatter(mask.unsqueeze(-1), source)


__all__ = ["splice"]
