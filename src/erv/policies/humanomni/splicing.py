"""Where the tokens of a clip go: placeholders of the vocabulary, one per token, or the released negative ids.

A placeholder can be written in two ways. Ours is a token of the vocabulary, repeated once per token it stands
for. The released one is a negative id, one per clip, which is expanded here before the embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

IMAGE_ID, VIDEO_ID, AUDIO_ID = -200, -201, -202  # as the released code writes them into `input_ids`
RELEASED_IDS = {"<image>": IMAGE_ID, "<video>": VIDEO_ID, "<audio>": AUDIO_ID}
IGNORED = -100
_FILLER = 0  # where the mask is 0, any row of the embedding table will do


@dataclass(frozen=True)
class ExpandedRows:
    """Rows with one placeholder per token.

    Attributes:
        input_ids: long [rows, length]; placeholders stay negative.
        attention_mask: long [rows, length].
        labels: long [rows, length], -100 at placeholders and padding; None if none were given.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor | None


def expand_rows(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
    video_tokens: int | None,
    audio_tokens: int | None,
    *,
    side: Literal["keep", "left"] = "keep",
) -> ExpandedRows:
    """Repeats each negative placeholder once per token of its clip.

    Existing padding stays where it is. Rows that end up shorter than the longest are padded on the side where
    they already have padding, or on the right if they have none.

    Args:
        input_ids: long [rows, length], with -200 (`<image>`), -201 (`<video>`) and -202 (`<audio>`).
        attention_mask: [rows, length]; None for all ones.
        labels: long [rows, length], or None.
        video_tokens: visual tokens per clip; None if the batch has no frames.
        audio_tokens: audio tokens per clip; None if the batch has no sound.
        side: "left" moves all padding to the left, as generation needs.

    Raises:
        ValueError: an unknown negative id, a placeholder without its clip, or a mask of another shape.
    """
    if int(input_ids.min()) < AUDIO_ID or bool(((input_ids < 0) & (input_ids > IMAGE_ID)).any()):
        raise ValueError(
            "input_ids holds a negative id that is not a placeholder: <image> is -200, <video> -201,"
            " <audio> -202"
        )
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(input_ids.dtype)
    for name, other in (("attention_mask", mask), ("labels", labels)):
        if other is not None and other.shape != input_ids.shape:
            raise ValueError(
                f"{name} has the shape {list(other.shape)}, expected that of input_ids"
                f" {list(input_ids.shape)}: the model itself expands negative placeholders"
            )
    counts = torch.ones_like(input_ids)
    for codes, tokens, inputs in (
        ((IMAGE_ID, VIDEO_ID), video_tokens, "pixel_values or video_features"),
        ((AUDIO_ID,), audio_tokens, "input_features or audio_features"),
    ):
        found = torch.isin(input_ids, input_ids.new_tensor(codes))
        if tokens is not None:
            counts[found] = tokens
        elif bool(found.any()):
            raise ValueError(f"input_ids holds placeholders {list(codes)}, but the batch has no {inputs}")
    length = int(counts.sum(dim=1).max())
    rows = []
    for row in range(input_ids.shape[0]):
        expanded_ids = input_ids[row].repeat_interleave(counts[row])
        expanded_mask = mask[row].repeat_interleave(counts[row])
        given = labels[row] if labels is not None else torch.full_like(input_ids[row], IGNORED)
        targets = given.masked_fill(input_ids[row] < 0, IGNORED).repeat_interleave(counts[row])
        rest = length - expanded_ids.shape[0]
        padding = (rest, 0) if int(mask[row, 0]) == 0 else (0, rest)
        columns = [
            torch.nn.functional.pad(column, padding, value=value)
            for column, value in ((expanded_ids, _FILLER), (expanded_mask, 0), (targets, IGNORED))
        ]
        if side == "left":
            order = columns[1].argsort(stable=True)
            columns = [column[order] for column in columns]
        rows.append(columns)
    ids, masks, targets = (torch.stack(columns) for columns in zip(*rows, strict=True))
    return ExpandedRows(ids, masks, targets if labels is not None else None)


def placeholders(input_ids: torch.Tensor, token_id: int | None, released: tuple[int, ...]) -> torch.Tensor:
    """Where a modality's tokens go: bool [rows, length]; without a `token_id` only released ids count."""
    mask = torch.eq(input_ids, released[0] if token_id is None else token_id)
    for other in released:
        mask = mask | torch.eq(input_ids, other)
    return mask


__all__ = [
    "AUDIO_ID",
    "IMAGE_ID",
    "RELEASED_IDS",
    "VIDEO_ID",
    "ExpandedRows",
    "expand_rows",
    "placeholders",
]
