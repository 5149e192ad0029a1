"""Trains the verifier on labelled sentences and measures it on held-out ones.

Fitting uses the train split, temperature and thresholds the validation split, and `metrics.json` the test
split. No text is in two of them, or training refuses. Validation and test count each text once, however many
explanations have it: repeats are no further evidence.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from erv.checkpoints import discard_incomplete, latest_checkpoint, mark_complete
from erv.determinism import resolve_device, resolve_dtype, seed_everything
from erv.errors import DataError, TrainingError
from erv.labels import LabelSpace
from erv.settings import RuntimeSettings, TrainErvSettings
from erv.verifier.calibration import choose_thresholds, classification_report, fit_temperature
from erv.verifier.model import METRICS_FILE, EmotionVerifier
from erv.verifier.sentences import normalize

logger = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float], int], None]
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class Split:
    """Sentences and their labels as 0/1, float32 [n, labels]."""

    sentences: list[str]
    targets: np.ndarray


def train_verifier(
    sentences: Path,
    encoder: Path,
    output: Path,
    settings: TrainErvSettings,
    runtime: RuntimeSettings,
    *,
    seed: int,
    checkpoints: Path,
    on_metrics: OnMetrics = lambda values, step: None,
) -> dict[str, Any]:
    """Fine-tunes an encoder as a multi-label classifier, calibrates it and writes a verifier folder.

    Args:
        sentences: parquet of `erv.verifier.distill`.
        encoder: `from_pretrained` folder of a BERT-like encoder with its tokenizer.
        output: verifier folder, made anew; appears when complete.
        settings: section `train_erv`.
        runtime: device, precision and threads.
        seed: of the head's initial weights, of dropout and of the order of batches.
        checkpoints: folder outside the outputs; training resumes from its newest complete checkpoint.
        on_metrics: called with losses and learning rate, and the step.

    Returns:
        The content of `metrics.json`.

    Raises:
        DataError: sentences or encoder are missing or unusable, or a text is in two splits.
        TrainingError: the loss is not finite.
    """
    # Its bars and its report of the fresh head are noise in a stage's log.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    seed_everything(seed, runtime.threads)
    device = resolve_device(runtime.device)
    labels = LabelSpace.load("mafw").names
    splits = load_splits(sentences, labels)
    model, tokenizer = _load_encoder(encoder, labels)
    _fit(
        model,
        tokenizer,
        splits["train"],
        settings,
        device,
        half=resolve_dtype(runtime.dtype, device),
        seed=seed,
        checkpoints=checkpoints,
        on_metrics=on_metrics,
    )
    verifier = EmotionVerifier(
        model,
        tokenizer,
        labels=labels,
        thresholds=[0.5] * len(labels),
        max_length=settings.max_length,
    )
    _calibrate(verifier, splits["validation"])
    metrics = _measure(verifier, splits)
    _write(verifier, metrics, output)
    return metrics


def load_splits(path: Path, labels: tuple[str, ...]) -> dict[str, Split]:
    """Reads the sentences by split, those of validation and test once each.

    Raises:
        DataError: a missing file or split, an unknown label, or a text that is in two splits.
    """
    if not path.is_file():
        raise DataError(f"{path}: sentences not found; run `dvc repro distill` first")
    rows = pq.read_table(path).to_pylist()
    column = {label: index for index, label in enumerate(labels)}
    splits: dict[str, Split] = {}
    place: dict[str, str] = {}  # text -> split
    for name in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == name]
        for row in chosen:
            if place.setdefault(normalize(row["sentence"]), name) != name:
                raise DataError(
                    f"{path}: sentence {row['sentence']!r} is in the splits"
                    f" {place[normalize(row['sentence'])]} and {name}; run `dvc repro distill` again"
                )
        if name != "train":
            chosen = list({(normalize(row["sentence"]), *row["labels"]): row for row in chosen}.values())
        if not chosen:
            raise DataError(f"{path}: no sentence in the {name} split; run `dvc repro distill` again")
        targets = np.zeros((len(chosen), len(labels)), dtype=np.float32)
        for index, row in enumerate(chosen):
            for label in row["labels"]:
                if label not in column:
                    raise DataError(f"{path}: clip {row['clip_id']!r} has unknown label {label!r}")
                targets[index, column[label]] = 1.0
        splits[name] = Split([row["sentence"] for row in chosen], targets)
    return splits


def _load_encoder(folder: Path, labels: tuple[str, ...]) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no encoder in it; pin a base source with encoder/config.json")
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        local_files_only=True,
        num_labels=len(labels),
        problem_type="multi_label_classification",
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    # A folder's path would otherwise be saved with the model.
    model.config._name_or_path = ""
    model.name_or_path = ""
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


class _Reporter(TrainerCallback):
    """Hands metrics on, stops at a non-finite loss and completes checkpoints."""

    def __init__(self, on_metrics: OnMetrics, checkpoints: Path, steps: int) -> None:
        self._on_metrics = on_metrics
        self._checkpoints = checkpoints
        self._steps = steps

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        values = {name: float(value) for name, value in (logs or {}).items() if name in _LOGGED}
        if not values:
            return
        if not all(np.isfinite(value) for value in values.values()):
            raise TrainingError(
                f"train_erv: loss is not finite at step {state.global_step}; lower train_erv.learning_rate"
            )
        logger.info("step %d of %d: loss %.4f", state.global_step, self._steps, values.get("loss", 0.0))
        self._on_metrics(values, int(state.global_step))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        mark_complete(self._checkpoints / f"checkpoint-{state.global_step}")


_LOGGED = ("loss", "learning_rate", "grad_norm")


def _fit(
    model: Any,
    tokenizer: Any,
    data: Split,
    settings: TrainErvSettings,
    device: torch.device,
    *,
    half: torch.dtype,
    seed: int,
    checkpoints: Path,
    on_metrics: OnMetrics,
) -> None:
    encoded = tokenizer(data.sentences, truncation=True, max_length=settings.max_length)["input_ids"]
    rows = [
        {"input_ids": ids, "labels": target.tolist()}
        for ids, target in zip(encoded, data.targets, strict=True)
    ]
    discard_incomplete(checkpoints)
    resume = latest_checkpoint(checkpoints)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, int(WARMUP_SHARE * settings.max_steps)),
        lr_scheduler_type="linear",
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=max(1, settings.max_steps // 30),
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        data_seed=seed,
        use_cpu=device.type == "cpu",
        bf16=half is torch.bfloat16,
        fp16=half is torch.float16,
        dataloader_pin_memory=device.type == "cuda",
        dataloader_num_workers=0,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[_Reporter(on_metrics, checkpoints, settings.max_steps)],
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if resume is not None:
        logger.info("resuming from %s", resume.name)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def _calibrate(verifier: EmotionVerifier, validation: Split) -> None:
    logits = verifier.logits(validation.sentences).numpy().astype(np.float64)
    verifier.temperature = fit_temperature(logits, validation.targets)
    probabilities = verifier.predict(validation.sentences).numpy()
    verifier.thresholds = tuple(choose_thresholds(probabilities, validation.targets))


def _measure(verifier: EmotionVerifier, splits: dict[str, Split]) -> dict[str, Any]:
    test = splits["test"]
    report = classification_report(
        verifier.predict(test.sentences).numpy(),
        test.targets,
        np.asarray(verifier.thresholds, dtype=np.float32),
        verifier.labels,
    )
    seen = {normalize(sentence) for sentence in splits["train"].sentences}
    report["unseen_share"] = sum(normalize(text) not in seen for text in test.sentences) / len(test.sentences)
    report["train_sentences"] = len(splits["train"].sentences)
    report["train_texts"] = len(seen)
    report["validation_sentences"] = len(splits["validation"].sentences)
    return report


def _write(verifier: EmotionVerifier, metrics: dict[str, Any], output: Path) -> None:
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    verifier.save_pretrained(temporary)
    text = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    (temporary / METRICS_FILE).write_text(text, encoding="utf-8")
    shutil.rmtree(output, ignore_errors=True)
    temporary.replace(output)
