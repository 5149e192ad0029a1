"""Puts what a policy sees and hears at the placeholders of its prompts."""

from __future__ import annotations

import torch


def splice(
    embeddings: torch.Tensor,
    mask: torch.Tensor,
    tokens: torch.Tensor,
    clip_index: torch.Tensor,
    modality: str,
) -> torch.Tensor:
    """Puts clip tokens at their placeholders; a row without placeholders gets none.

    Args:
        embeddings: [rows, length, hidden].
        mask: bool [rows, length], true at placeholders.
        tokens: [clips, n, hidden].
        clip_index: long [rows], the clip of each row; or, for packed rows, [rows, length], the clip of each
            token. In packed rows every unbroken run of n placeholders shows one clip.
        modality: name of the modality, for messages.

    Returns:
        [rows, length, hidden].

    Raises:
        ValueError: placeholders and clips don't fit together.
    """
    expected = tokens.shape[1]
    counts = mask.sum(dim=1)
    rows = counts > 0
    if clip_index.ndim == 1:
        if bool((counts[rows] != expected).any()):
            found = sorted(set(counts[rows].tolist()))
            raise ValueError(f"a row has {found} {modality} placeholders, expected 0 or {expected}")
        shown = clip_index[rows]
    else:
        shown = _shown_by_runs(mask, counts, expected, clip_index, modality)
    if shown.numel() and int(shown.max()) >= tokens.shape[0]:
        raise ValueError(
            f"a row shows clip {int(shown.max())}, but the batch has {tokens.shape[0]} {modality} clips;"
            " give clip_index where rows and clips don't correspond one to one"
        )
    return embeddings.masked_scatter(mask.unsqueeze(-1), tokens[shown].to(embeddings.dtype))


def require_features(mask: torch.Tensor, modality: str) -> None:
    """Refuses placeholders without features: the model would read them as if they were words.

    Args:
        mask: bool [rows, length], true at the placeholders of a modality without features.
        modality: its name, for the message.

    Raises:
        ValueError: a row has a placeholder.
    """
    if bool(mask.any()):
        raise ValueError(
            f"a prompt has {modality} placeholders, but {modality}_features are missing; give them as"
            f" encode_clips returns them, or leave the {modality} out of the prompt"
        )


def _shown_by_runs(
    mask: torch.Tensor, counts: torch.Tensor, expected: int, clip_index: torch.Tensor, modality: str
) -> torch.Tensor:
    """The clip of each run of placeholders in packed rows, in order."""
    if bool((counts % expected != 0).any()):
        found = sorted(set(counts.tolist()))
        raise ValueError(
            f"packed rows have {found} {modality} placeholders, expected multiples of {expected}"
        )
    runs = clip_index[mask].view(-1, expected)
    columns = mask.nonzero()[:, 1].view(-1, expected)
    if bool((columns.diff(dim=1) != 1).any()):
        raise ValueError(
            f"packed rows have a broken run of {modality} placeholders, expected {expected} in a row"
        )
    if bool((runs != runs[:, :1]).any()):
        raise ValueError(
            f"a run of {expected} {modality} placeholders shows more than one clip in clip_index"
        )
    return runs[:, 0]


def rows_of_clips(input_ids: torch.Tensor, clip_index: torch.Tensor | None) -> torch.Tensor:
    """The clip of each row or of each token: `clip_index`, or clip i for row i if it is None.

    Args:
        input_ids: long [rows, length].
        clip_index: long [rows] or [rows, length], or None.

    Raises:
        ValueError: `clip_index` has another shape.
    """
    if clip_index is None:
        return torch.arange(input_ids.shape[0], device=input_ids.device)
    if clip_index.ndim == 2 and clip_index.shape != input_ids.shape:
        raise ValueError(
            f"clip_index has the shape {list(clip_index.shape)}, expected [rows] or that of input_ids"
            f" {list(input_ids.shape)}"
        )
    return clip_index


__all__ = ["require_features", "rows_of_clips", "splice"]
