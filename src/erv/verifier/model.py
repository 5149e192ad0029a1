"""The verifier as a model: a multi-label sentence classifier with calibrated probabilities.

A verifier folder is a `transformers` sequence-classification folder (safetensors, tokenizer, config) with
`verifier.json` beside it: the labels in the order of the columns, a threshold for each and the temperature
that calibrates the logits. `metrics.json` tells how well it does on texts that were not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from erv.errors import DataError

FILE = "verifier.json"
METRICS_FILE = "metrics.json"


class EmotionVerifier:
    """Names the emotions of sentences; satisfies `erv.rewards.Verifier`.

    Attributes:
        labels: a name per column, in the MAFW space.
        thresholds: per column, the probability above which the sentence has the label.
        temperature: what logits are divided by before the sigmoid.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        labels: Sequence[str],
        thresholds: Sequence[float],
        temperature: float = 1.0,
        max_length: int = 64,
        batch_size: int = 256,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.thresholds = tuple(thresholds)
        self.temperature = temperature
        self.max_length = max_length
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> EmotionVerifier:
        """Loads a verifier folder.

        Args:
            folder: written by `save_pretrained`.
            device: where it predicts.

        Raises:
            DataError: the folder is missing, is not a verifier, or its labels don't fit its classifier.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = Path(folder)
        try:
            description = json.loads((folder / FILE).read_text(encoding="utf-8"))
            labels, thresholds = description["labels"], description["thresholds"]
            temperature, max_length = float(description["temperature"]), int(description["max_length"])
        except FileNotFoundError:
            raise DataError(f"{folder}: no {FILE} in it; run `dvc repro train_erv` first") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / FILE}: not the description of a verifier ({error!r})") from error
        try:
            model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                f"{folder}: its model can't be loaded ({' '.join(str(error).split())[:200]});"
                " run `dvc repro train_erv` again"
            ) from error
        if not len(labels) == len(thresholds) == model.config.num_labels:
            raise DataError(
                f"{folder / FILE}: {len(labels)} labels and {len(thresholds)} thresholds for a classifier"
                f" with {model.config.num_labels} outputs"
            )
        return cls(
            model.to(device),
            tokenizer,
            labels=labels,
            thresholds=thresholds,
            temperature=temperature,
            max_length=max_length,
        )

    def save_pretrained(self, folder: Path) -> None:
        """Writes model, tokenizer and description into an existing or new folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        description = {
            "labels": list(self.labels),
            "thresholds": [round(float(value), 6) for value in self.thresholds],
            "temperature": round(float(self.temperature), 6),
            "max_length": self.max_length,
        }
        (folder / FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def predict(self, sentences: Sequence[str]) -> torch.Tensor:
        """Calibrated, independent probabilities of each label.

        Equal sentences are read once. Sentences of similar length share a batch, which depends on the set of
        sentences alone and not on their order.

        Args:
            sentences: n texts; longer ones than `max_length` tokens are cut.

        Returns:
            float32 [n, len(labels)] on the CPU.
        """
        # Before rows are repeated and put in order: the last bits of a vectorised function may depend on the
        # place.
        logits, places = self._read(sentences)
        return torch.sigmoid(logits / self.temperature)[places]

    def logits(self, sentences: Sequence[str]) -> torch.Tensor:
        """Raw logits, float32 [n, len(labels)] on the CPU; see `predict`."""
        logits, places = self._read(sentences)
        return logits[places]

    @torch.inference_mode()
    def _read(self, sentences: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
        """Logits of the different sentences, and for each sentence its row."""
        unique = sorted(set(sentences), key=lambda sentence: (len(sentence), sentence))
        rows = [torch.zeros(0, len(self.labels))]
        for start in range(0, len(unique), self.batch_size):
            inputs = self.tokenizer(
                unique[start : start + self.batch_size],
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.model.device)
            rows.append(self.model(**inputs).logits.float().cpu())
        position = {sentence: index for index, sentence in enumerate(unique)}
        return torch.cat(rows), [position[sentence] for sentence in sentences]


def read_metrics(folder: Path) -> dict[str, Any]:
    """The quality of a verifier on held-out sentences (`metrics.json`); DataError when it is missing."""
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {METRICS_FILE} in it; run `dvc repro train_erv` first") from None
    return dict(metrics)
