"""Loads classifiers and their tokenizers from folders, and refuses missing weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from erv.errors import DataError
from erv.model_folders import load_model, load_part


def load_classifier(folder: Path, remedy: str, *, new_head: bool = False, **options: Any) -> tuple[Any, Any]:
    """Loads `...ForSequenceClassification` and its tokenizer from a local folder.

    Args:
        folder: of `save_pretrained`.
        remedy: what to do about a folder that can't be loaded; ends the error message.
        new_head: whether layers above the encoder may be missing; they are then initialised randomly.
        **options: for `from_pretrained`.

    Raises:
        DataError: it can't be loaded, would need code or a pickle, or weights are missing and would silently
            be random.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        model, report = load_model(
            AutoModelForSequenceClassification,
            folder,
            output_loading_info=True,
            **{"dtype": torch.float32, **options},
        )
        tokenizer = load_part(AutoTokenizer, folder)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: its model can't be loaded ({said}); {remedy}") from error
    missing = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if new_head:
        encoder = f"{model.base_model_prefix}."
        # The pooler belongs to this head, and many encoders come without one.
        missing = {name for name in missing if name.startswith(encoder) and ".pooler." not in name}
    if missing:
        raise DataError(f"{folder}: its weights lack {', '.join(sorted(missing)[:3])}; {remedy}")
    return model, tokenizer


def longest_input(model: Any) -> int | None:
    """The number of tokens that an encoder has positions for; None if there is no such bound."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if (
        not positions
        or positions < 0
        or getattr(model.config, "position_embedding_type", "absolute") != "absolute"
    ):
        return None
    # RoBERTa and similar models count positions from the one after the padding token's.
    embeddings = getattr(model.base_model, "embeddings", None)
    offset = getattr(embeddings, "padding_idx", None)
    return int(positions) - (int(offset) + 1 if offset is not None else 0)


def check_length(model: Any, max_length: int, where: str) -> None:
    """Raises DataError when sentences may be longer than the encoder can read."""
    most = longest_input(model)
    if most is not None and max_length > most:
        raise DataError(f"{where}: max_length is {max_length}, but the encoder reads {most} tokens; lower it")
