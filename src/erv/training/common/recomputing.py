"""Activations that are computed again in the backward pass, under the names that transformers has for it."""

from typing import Any

from transformers import TrainingArguments

# Versions that know the newer name warn of the older one.
_NEWER, _OLDER = "activation_checkpointing", "gradient_checkpointing"
_NAME = _NEWER if _NEWER in TrainingArguments.__dataclass_fields__ else _OLDER


def recomputing(enabled: bool, **how: Any) -> dict[str, Any]:
    """The arguments of a trainer's configuration that turn it on or off.

    Args:
        enabled: whether it is on.
        **how: for `torch.utils.checkpoint`; without any, the trainer's own choice.
    """
    return {_NAME: enabled, **({f"{_NAME}_kwargs": how} if how else {})}


def is_recomputing(arguments: Any) -> bool:
    """Whether a trainer's configuration has turned it on."""
    return bool(getattr(arguments, _NAME))


def recompute(model: Any) -> None:
    """Turns it on for a model, as a trainer does."""
    getattr(model, f"{_NAME}_enable")()
