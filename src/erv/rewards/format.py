"""The format reward: one think block followed by one answer block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from erv.prompts import Completion, completion_text, is_well_formed
from erv.sentences import Semantics

_BETWEEN_BLOCKS = re.compile(r"</think>\s*<answer>")


def format_reward(
    completions: Sequence[Completion], *, semantics: Semantics = "strict", **columns: Any
) -> list[float]:
    """1.0 for a completion that is one think block followed by one answer block, else 0.0.

    `strict` fixes the official rule: further tags inside the blocks (a second answer, a nested block) and
    blank blocks fail; white space around the whole, such as a trailing newline, passes.

    Args:
        completions: n completions.
        semantics: `strict` or `official`.
        **columns: other columns of the batch; not read.

    Returns:
        n rewards.
    """
    texts = [completion_text(completion) for completion in completions]
    if semantics == "official":
        return [1.0 if _is_officially_well_formed(text) else 0.0 for text in texts]
    return [1.0 if is_well_formed(text) else 0.0 for text in texts]


def _is_officially_well_formed(text: str) -> bool:
    """Whether the released expression matches the whole text (think block, white space, answer block)."""
    begin, end = "<think>", "</answer>"
    inner = text[len(begin) : -len(end)]
    return text.startswith(begin) and text.endswith(end) and _BETWEEN_BLOCKS.search(inner) is not None
