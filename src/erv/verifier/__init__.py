"""The Emotional Rationale Verifier: names the emotions of each sentence of an explanation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from erv.sentences import split_sentences

if TYPE_CHECKING:
    from erv.verifier.model import EmotionVerifier

__all__ = ["EmotionVerifier", "split_sentences"]


def __getattr__(name: str) -> Any:
    """Imports torch only when the model is asked for."""
    if name == "EmotionVerifier":
        from erv.verifier.model import EmotionVerifier

        return EmotionVerifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
