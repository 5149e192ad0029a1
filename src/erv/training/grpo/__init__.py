"""GRPO of policies that see and hear, and rejection sampling at equal compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erv.training.grpo.trainer import OmniGRPOTrainer

__all__ = ["OmniGRPOTrainer"]


def __getattr__(name: str) -> Any:
    """Imports TRL only when the trainer is needed."""
    if name == "OmniGRPOTrainer":
        from erv.training.grpo.trainer import OmniGRPOTrainer

        return OmniGRPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
