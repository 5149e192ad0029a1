"""Which completions share a prompt.

The completions of a group share their prompt, and most of its tokens stand for frames and sound. So it runs
once: as part of a packed row when scoring (`erv.training.grpo.packing`), before the completions when
generating (`erv.training.grpo.decode`). The results are those of one run of the prompt per completion.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class SharedPrompt:
    """One prompt per group of rows.

    Attributes:
        inputs: inputs of the inner model, [groups, ...].
        group_of_row: long [rows], the group whose prompt each row continues.
    """

    inputs: dict[str, torch.Tensor]
    group_of_row: torch.Tensor


def distinct_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows are the first of their kind, long [groups], and the group of each row, long [rows].

    Args:
        rows: [rows, n].
    """
    groups, group_of_row = torch.unique(rows, dim=0, return_inverse=True)
    order = torch.arange(rows.size(0), device=rows.device)
    first = order.new_full((groups.size(0),), rows.size(0)).scatter_reduce(0, group_of_row, order, "amin")
    return first, group_of_row
