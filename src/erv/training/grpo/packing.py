"""Prompts and completions of a pass as one row without padding, each prompt once.

Everything in the language model except attention treats tokens one by one, so this row costs what its tokens
cost: no padding, no prompt for every completion. `erv.training.grpo.grouped_attention` reads from the layout
which tokens see which.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from erv.training.grpo.shared_prompts import distinct_rows

_ROWS_AT_ONCE = 16  # completions of similar length that share an attention call


class Layout:
    """Where the prompts and completions of a packed row lie.

    The prompts come first, group by group, then the completions in the same order of groups. It isn't a
    data class, because wrappers around a model rebuild those field by field.

    Attributes:
        groups: per group, the slice of its prompt and that of all its completions.
        buckets: completions of similar length: long [rows, longest], the token of each place, and bool of the
            same shape, whether the place is taken. A free place repeats the completion's last token.
    """

    def __init__(self, prompts: list[int], completions: list[list[int]], device: torch.device) -> None:
        """Takes the lengths.

        Args:
            prompts: tokens of each group's prompt.
            completions: per group, the tokens of each of its completions.
            device: where the indices are kept.
        """
        self.groups: list[tuple[slice, slice]] = []
        place, start = 0, sum(prompts)
        starts, lengths = [], []
        for prompt, rows in zip(prompts, completions, strict=True):
            self.groups.append((slice(place, place + prompt), slice(start, start + sum(rows))))
            place += prompt
            for length in rows:
                starts.append(start)
                lengths.append(length)
                start += length
        self.buckets = _buckets(torch.tensor(starts), torch.tensor(lengths), device)


def _buckets(
    starts: torch.Tensor, lengths: torch.Tensor, device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    by_length = lengths.argsort(stable=True)
    filled = by_length[lengths[by_length] > 0]
    found = []
    for rows in filled.split(_ROWS_AT_ONCE) if len(filled) else ():
        own = lengths[rows].unsqueeze(1)
        place = torch.arange(int(own.max()))
        tokens = starts[rows].unsqueeze(1) + torch.minimum(place, own - 1)
        found.append((tokens.to(device), (place < own).to(device)))
    return found


@dataclass(frozen=True)
class Packed:
    """A pass as one row of N tokens; its last M are inputs that predict a token of a completion.

    Attributes:
        input_ids: long [1, N].
        position_ids: long [1, N], or [axes, 1, N].
        clip_index: long [1, N], the clip of each token.
        targets: long [M], the token that each of the last M tokens predicts.
        places: long [M], where its log-probability belongs in [rows, completion] as one row.
        layout: which tokens see which.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    clip_index: torch.Tensor
    targets: torch.Tensor
    places: torch.Tensor
    layout: Layout

    def unpack(self, values: torch.Tensor, rows: int, length: int) -> torch.Tensor:
        """Values [M] at their places, [rows, length]; 0 where a completion has no token."""
        return values.new_zeros(rows * length).index_put((self.places,), values).view(rows, length)


def pack(
    ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, clip_index: torch.Tensor, keep: int
) -> Packed:
    """Packs rows that hold a prompt and a completion of `keep` columns.

    The last token of a prompt predicts the first of a completion: it runs with each completion, and the last
    token of a completion, which predicts none, does not run.

    Args:
        ids: long [rows, P + keep]; the prompts padded on the left, the completions on the right. Padding
            anywhere else is left out too: a token then follows the one before the gap.
        mask: [rows, P + keep]; 0 marks padding. Every prompt has at least two tokens.
        positions: long [rows, P + keep], or [axes, rows, P + keep].
        clip_index: long [rows].
        keep: columns of the completion.

    Raises:
        ValueError: a prompt has fewer than two tokens.
    """
    width = ids.shape[1]
    start = width - keep
    taken = mask.bool()
    first, group_of_row = distinct_rows(
        torch.cat([ids[:, :start].masked_fill(~taken[:, :start], -1), clip_index.unsqueeze(1)], dim=1)
    )
    order = group_of_row.argsort(stable=True)
    column = torch.arange(width, device=ids.device)
    last = torch.where(taken[:, :start], column[:start], -1).amax(1)  # the last token of each prompt
    prompt = taken[first] & (column < last[first].unsqueeze(1))
    if not bool(prompt.any(1).all()):
        raise ValueError("a prompt has fewer than two tokens; shared prompts need two or more")
    scored = taken[order] & (column >= start)
    # Of every scored token, the column of the token before it.
    before = torch.where(taken, column, -1).cummax(1).values.roll(1, dims=1)[order]
    lengths = scored.sum(1)
    counts = torch.bincount(group_of_row, minlength=len(first)).tolist()
    row = torch.cat(
        [first.unsqueeze(1).expand_as(prompt)[prompt], order.unsqueeze(1).expand_as(scored)[scored]]
    )
    place = torch.cat([column.expand_as(prompt)[prompt], before[scored]])
    goal_row, goal_column = order.unsqueeze(1).expand_as(scored)[scored], column.expand_as(scored)[scored]
    return Packed(
        input_ids=ids[row, place].unsqueeze(0),
        position_ids=positions[..., row, place].unsqueeze(-2),
        clip_index=clip_index[row].unsqueeze(0),
        targets=ids[goal_row, goal_column],
        places=goal_row * keep + goal_column - start,
        layout=Layout(
            prompt.sum(1).tolist(),
            [part.tolist() for part in lengths.split(counts)],
            ids.device,
        ),
    )
