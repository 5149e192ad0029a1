"""A check that loading left no part of a policy randomly initialised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from erv.errors import TrainingError


def check_loaded(name: object, info: Mapping[str, Any], *, unexpected: bool) -> None:
    """Refuses weights that don't fit their configuration: transformers fills the gaps with random numbers.

    Args:
        name: the checkpoint, for the message.
        info: the info from `from_pretrained(..., output_loading_info=True, ignore_mismatched_sizes=True)`.
        unexpected: whether to refuse weights that the model has no place for as well.

    Raises:
        TrainingError: a weight is missing, unexpected, or has another shape.
    """
    missing = sorted(key for key in info["missing_keys"] if not key.endswith("position_ids"))
    superfluous = sorted(info["unexpected_keys"]) if unexpected else []
    faults = [
        *(f"missing {key}" for key in missing[:3]),
        *(f"unexpected {key}" for key in superfluous[:3]),
        *(
            f"{key} is {list(found)}, expected {list(expected)}"
            for key, found, expected in sorted(info["mismatched_keys"])[:3]
        ),
    ]
    if faults:
        raise TrainingError(
            f"{name}: weights and configuration don't fit together ({'; '.join(faults)}); fetch both again"
        )


__all__ = ["check_loaded"]
