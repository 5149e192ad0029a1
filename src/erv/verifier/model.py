"""The verifier as a model: a multi-label sentence classifier with calibrated probabilities.

A verifier folder is a `transformers` sequence-classification folder (safetensors, tokenizer, config) plus
`verifier.json`: the labels in column order, a threshold for each, and the calibration of the logits.
`metrics.json` reports its quality on texts it was not trained on, and `vocabulary.txt` lists the words that
it was trained on, one a line. A classifier of the 28 GoEmotions labels, such as the method's released one, is
a verifier even without `verifier.json`, with thresholds of 0.1 and plain sigmoids, which is how the released
reward reads it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from erv.determinism import resolve_device, resolve_dtype
from erv.errors import DataError
from erv.files import write_document, write_text
from erv.model_folders import check_regular
from erv.sentences import Vocabulary, encodable, foreign_script
from erv.settings import RuntimeSettings
from erv.verifier.calibration import Calibration
from erv.verifier.goemotions import column_names
from erv.verifier.loading import check_length, load_classifier, longest_input
from erv.verifier.memory import MemoryView, SentenceMemory
from erv.verifier.protocol import DEFAULT_THRESHOLD

FILE = "verifier.json"
METRICS_FILE = "metrics.json"
VOCABULARY_FILE = "vocabulary.txt"
RELEASED_MAX_LENGTH = 512
# Tokens per batch, padding included: few on a CPU, to fit its caches; many on a GPU, to keep it busy.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}


class EmotionVerifier:
    """Names the emotions of sentences; satisfies `erv.rewards.explanation.Verifier`.

    Attributes:
        labels: a name per column, MAFW names where they map.
        thresholds: per column, the probability above which the sentence has the label.
        calibration: how logits become probabilities.
        vocabulary: the words that it was trained on; None if they are not known.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        labels: Sequence[str],
        thresholds: Sequence[float],
        calibration: Calibration | None = None,
        max_length: int = 64,
        batch_tokens: int | None = None,
        memory: SentenceMemory | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Takes a classifier as it is.

        Args:
            model: `...ForSequenceClassification`, on its device, in its precision.
            tokenizer: of the model.
            labels: a name per output.
            thresholds: a probability per output.
            calibration: plain sigmoids if omitted.
            max_length: tokens of a sentence; the rest is cut.
            batch_tokens: maximum tokens of a batch, padding included; depends on the device if omitted.
            memory: of sentences read before; if omitted, calls share nothing.
            vocabulary: the words that it was trained on, see `unreadable`.
        """
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.labels = tuple(labels)
        self.thresholds = tuple(thresholds)
        self.calibration = calibration or Calibration()
        self.max_length = max_length
        self.batch_tokens = batch_tokens or BATCH_TOKENS.get(model.device.type, BATCH_TOKENS["cuda"])
        self.memory = memory
        self.vocabulary = vocabulary

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        memory: SentenceMemory | None = None,
    ) -> EmotionVerifier:
        """Loads a verifier folder, or a classifier of the GoEmotions labels.

        Args:
            folder: written by `save_pretrained`, or a `from_pretrained` folder of such a classifier.
            device: where it runs.
            dtype: of the weights and the computation; half precision is for a GPU. Probabilities are always
                float32.
            memory: of sentences read before, for training.

        Raises:
            DataError: the folder is missing, is not a verifier, holds a pipe or device, or its labels don't
                fit its classifier.
        """
        folder = Path(folder)
        check_regular(folder)
        description = _description(folder)
        model, tokenizer = load_classifier(folder, "run `dvc repro train_erv` again", dtype=dtype)
        if description is None:
            description = _released(folder, model, tokenizer)
        labels, thresholds = description["labels"], description["thresholds"]
        if len(set(labels)) != len(labels) or not all(0.0 < limit < 1.0 for limit in thresholds):
            raise DataError(
                f"{folder / FILE}: expected different labels, and thresholds between 0 and 1; run"
                " `dvc repro train_erv` again"
            )
        curves = description["calibration"].curves
        if not len(labels) == len(thresholds) == model.config.num_labels or len(curves) not in (
            0,
            len(labels),
        ):
            raise DataError(
                f"{folder / FILE}: {len(labels)} labels and {len(thresholds)} thresholds for a classifier"
                f" with {model.config.num_labels} outputs"
            )
        check_length(model, description["max_length"], str(folder / FILE))
        vocabulary = _vocabulary(folder)
        return cls(model.to(device), tokenizer, memory=memory, vocabulary=vocabulary, **description)

    def save_pretrained(self, folder: Path) -> None:
        """Writes model, tokenizer and description into an existing or new folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        description = {
            "labels": list(self.labels),
            "thresholds": [round(float(value), 6) for value in self.thresholds],
            "calibration": self.calibration.as_dict(),
            "max_length": self.max_length,
        }
        write_document(description, folder / FILE)
        if self.vocabulary is not None:
            write_text(
                "".join(f"{word}\n" for word in sorted(self.vocabulary.words)), folder / VOCABULARY_FILE
            )

    def unreadable(self, sentences: Sequence[str]) -> list[bool]:
        """Whether each sentence is outside what the verifier can read.

        Tokenizers of bytes or word pieces have a token for everything, so unknown tokens don't tell. With a
        vocabulary, the share of unknown words decides (`erv.sentences.UNREADABLE_SHARE`); without one, as for
        the released classifier, only another script is noticed.
        """
        unreadable = foreign_script if self.vocabulary is None else self.vocabulary.unreadable
        return [unreadable(sentence) for sentence in sentences]

    def predict(self, sentences: Sequence[str]) -> torch.Tensor:
        """Calibrated, independent probabilities of each label.

        Equal sentences are read once, and those in `memory` not at all. Sentences of similar length share a
        batch. Batches depend on the set of sentences, not on their order. Characters that can't be encoded as
        UTF-8 (lone surrogates) are read as a question mark.

        Args:
            sentences: n texts; longer ones than `max_length` tokens are cut.

        Returns:
            float32 [n, len(labels)] on the CPU.

        Raises:
            DataError: a value is not finite.
        """
        # Done before rows are repeated and reordered: the last bits of a vectorised function may depend on
        # the position.
        logits, places = self._read(sentences)
        return torch.from_numpy(self.calibration.probabilities(logits.numpy()))[places]

    def reader(self) -> EmotionVerifier:
        """The same verifier for use beside training: it reads the memory but adds nothing to it."""
        reader = copy.copy(self)
        reader.memory = None if self.memory is None else MemoryView(self.memory)
        return reader

    def logits(self, sentences: Sequence[str]) -> torch.Tensor:
        """Raw logits, float32 [n, len(labels)] on the CPU; see `predict`."""
        logits, places = self._read(sentences)
        return logits[places]

    def _read(self, sentences: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
        """Logits of the distinct sentences, and the row of each sentence."""
        texts = [encodable(sentence) for sentence in sentences]
        unique = sorted(set(texts))
        known = {text: self.memory.find(text) if self.memory is not None else None for text in unique}
        missing = [text for text, row in known.items() if row is None]
        read = self._classify(missing)
        known.update(zip(missing, read, strict=True))
        if self.memory is not None:
            self.memory.note(missing, read)
        rows = [row for row in known.values() if row is not None]
        logits = torch.stack(rows) if rows else torch.zeros(0, len(self.labels))
        if not torch.isfinite(logits).all():
            raise DataError("the verifier gives values that are not finite; run `dvc repro train_erv` again")
        row = {text: index for index, text in enumerate(unique)}
        return logits, [row[text] for text in texts]

    @torch.inference_mode()
    def _classify(self, texts: Sequence[str]) -> torch.Tensor:
        """Logits of distinct texts, float32 [n, len(labels)]."""
        logits = torch.zeros(len(texts), len(self.labels))
        if not texts:
            return logits
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        for rows in self._batches(lengths):
            batch = {name: [values[row] for row in rows] for name, values in encoded.items()}
            inputs = self.tokenizer.pad(batch, return_tensors="pt").to(self.model.device)
            logits[rows] = self.model(**inputs).logits.float().cpu()
        return logits.clone()

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows sorted by length, as many per batch as the longest of them allows."""
        batch: list[int] = []
        for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
            if batch and (len(batch) + 1) * lengths[row] > self.batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch


def load_for_training(folder: Path, runtime: RuntimeSettings, memory: SentenceMemory) -> EmotionVerifier:
    """The verifier for use as a reward: on the training's device, in its precision, with a memory."""
    device = resolve_device(runtime.device)
    return EmotionVerifier.from_pretrained(
        folder, device=device, dtype=resolve_dtype(runtime.dtype, device), memory=memory
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """The quality of a verifier on held-out sentences (`metrics.json`).

    Raises:
        DataError: it is missing, or not a JSON object.
    """
    try:
        metrics = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {METRICS_FILE} in it; run `dvc repro train_erv` first") from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{folder / METRICS_FILE}: not JSON ({error}); run `dvc repro train_erv` again"
        ) from None
    if not isinstance(metrics, dict):
        raise DataError(
            f"{folder / METRICS_FILE}: not what train_erv writes; run `dvc repro train_erv` again"
        )
    return metrics


def mafw_columns(labels: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The columns of a verifier for the given names, in that order.

    Raises:
        DataError: a name has no column.
    """
    missing = [name for name in names if name not in labels]
    if missing:
        raise DataError(f"the verifier has no output for {', '.join(missing)}; expected all MAFW names")
    return np.array([list(labels).index(name) for name in names])


def _description(folder: Path) -> dict[str, Any] | None:
    """The content of `verifier.json` as arguments; None for a folder with a model but without that file."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {
            "labels": list(content["labels"]),
            "thresholds": [float(value) for value in content["thresholds"]],
            "calibration": Calibration.from_dict(content["calibration"]),
            "max_length": int(content["max_length"]),
        }
    except FileNotFoundError:
        if (folder / "config.json").is_file():
            return None
        what = f"no {FILE} in it" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {what}; run `dvc repro train_erv` first") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder / FILE}: not the description of a verifier ({error!r})") from error


def _vocabulary(folder: Path) -> Vocabulary | None:
    """The content of `vocabulary.txt`; None for a folder without it."""
    try:
        return Vocabulary(frozenset((folder / VOCABULARY_FILE).read_text(encoding="utf-8").split()))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{folder / VOCABULARY_FILE}: not UTF-8 (byte {error.start}); run `dvc repro train_erv` again"
        ) from error


def _released(folder: Path, model: Any, tokenizer: Any) -> dict[str, Any]:
    config = model.config
    labels = column_names(config.id2label)
    if labels is None:
        raise DataError(
            f"{folder}: no {FILE} in it, and its {config.num_labels} outputs are not the 28 of GoEmotions;"
            " run `dvc repro train_erv` to make a verifier of it"
        )
    return {
        "labels": labels,
        "thresholds": [DEFAULT_THRESHOLD] * len(labels),
        "calibration": Calibration(),
        "max_length": min(tokenizer.model_max_length, longest_input(model) or RELEASED_MAX_LENGTH),
    }
