"""A pretrained sentence encoder from a folder: sentences as vectors of length one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from erv.errors import EvaluationError
from erv.files import sha256_of
from erv.model_folders import load_model, load_part

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 8
_REMEDY = (
    "give a sentence encoder whose folder has config.json, tokenizer.json and model.safetensors;"
    " `erv data encoder` unpacks one"
)


class SentenceEncoder:
    """Mean of the last hidden states of a transformer, normalised.

    A sentence's vector depends neither on the others nor on how many they are: sentences of the same number
    of tokens share a batch, so that none is padded, and a batch is filled up to `ROWS` rows, so that all are
    multiplied alike. They are encoded on the CPU in float32, each distinct one once.

    Attributes:
        digest: of the files in the folder.

    Args:
        folder: as `from_pretrained` reads it; weights as safetensors.

    Raises:
        EvaluationError: it can't be loaded, or is no encoder.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._folder = folder
        if not (folder / "config.json").is_file():
            raise EvaluationError(f"{folder}: no sentence encoder in it; {_REMEDY}")
        try:
            model, report = load_model(AutoModel, folder, dtype="float32", output_loading_info=True)
            self._tokenizer = load_part(AutoTokenizer, folder)
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise EvaluationError(f"{folder}: can't be loaded as an encoder ({reason}); {_REMEDY}") from error
        # Some checkpoints leave out the pooler, which the mean of the hidden states doesn't use.
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
        if missing:
            raise EvaluationError(f"{folder}: its weights lack {missing[0]} of the encoder; {_REMEDY}")
        self._model = model.cpu().eval().requires_grad_(False)
        self._longest = int(getattr(model.config, "max_position_embeddings", 512))
        self.digest = sha256_of(folder)
        self._known: dict[str, np.ndarray] = {}

    def tensors(self) -> dict[str, Tensor]:
        """Its weights by name."""
        weights: dict[str, Any] = self._model.state_dict()
        return weights

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32 [sentences, width]."""
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._known]
        by_length: dict[int, list[tuple[str, list[int]]]] = {}
        for sentence in new:
            ids = self._tokenizer(sentence, truncation=True, max_length=self._longest)["input_ids"]
            by_length.setdefault(len(ids), []).append((sentence, ids))
        for alike in by_length.values():
            for start in range(0, len(alike), ROWS):
                batch = alike[start : start + ROWS]
                vectors = self._vectors([ids for _, ids in batch])
                self._known.update(zip((sentence for sentence, _ in batch), vectors, strict=True))
        return np.stack([self._known[sentence] for sentence in sentences])

    def _vectors(self, rows: list[list[int]]) -> np.ndarray:
        """Unit vectors of up to `ROWS` rows of token ids of the same length."""
        import torch

        ids = torch.tensor(rows + rows[:1] * (ROWS - len(rows)))
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        vectors: np.ndarray = torch.nn.functional.normalize(states.mean(dim=1), dim=1).numpy()
        return vectors[: len(rows)]

    def broken_share(self, words: Sequence[str]) -> float:
        """The share of words that its vocabulary has only in pieces; 0 for no word."""
        broken = sum(len(self._tokenizer.tokenize(word)) > 1 for word in words)
        return broken / len(words) if words else 0.0
