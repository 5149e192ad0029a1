"""Trains the verifier on labelled sentences and measures it on held-out ones.

Fitting uses the train split; early stopping, calibration and thresholds use the validation split;
`metrics.json` uses the test split. Training refuses a text that is in two of them. Validation and test count
each text once, however many explanations contain it, because repeats are no further evidence.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, TrainerState
from transformers.utils import logging as transformers_logging

from erv.checkpoints import discard_unusable, latest_checkpoint, mark_complete
from erv.determinism import resolve_device, resolve_dtype, seed_everything
from erv.errors import DataError, TrainingError
from erv.files import model_folder, read_parquet, write_text
from erv.labels import LabelSpace
from erv.sentences import Vocabulary, normalize
from erv.settings import RuntimeSettings, TrainErvSettings
from erv.train_erv.behaviour import check_behaviour
from erv.train_erv.card import model_card
from erv.train_erv.encoder import add_to_bias, load_encoder
from erv.train_erv.quality import quality, require_quality
from erv.train_erv.scores import classification_report
from erv.verifier.calibration import choose_thresholds, fit_calibration
from erv.verifier.model import METRICS_FILE, EmotionVerifier, mafw_columns

logger = logging.getLogger(__name__)

OnMetrics = Callable[[dict[str, float], int], None]
WARMUP_SHARE = 0.1
HEAVIEST = 10.0
UNTUNED = 0.5


@dataclass(frozen=True)
class Split:
    """Sentences, their labels as 0/1, float32 [n, labels], and where each comes from."""

    sentences: list[str]
    targets: np.ndarray
    sources: list[str]


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
        sentences: parquet of `erv.distill.distill`.
        encoder: `from_pretrained` folder of an encoder with its tokenizer. A classifier of the GoEmotions
            labels keeps the outputs that stand for MAFW names; with `max_steps: 0` it stays as it is, all its
            outputs included.
        output: verifier folder, replaced; appears when complete.
        settings: section `train_erv`.
        runtime: device, precision and threads.
        seed: of the head's initial weights, of dropout and of the order of batches.
        checkpoints: folder outside the outputs; training resumes from its newest complete checkpoint.
        on_metrics: called with losses and learning rate, and the step.

    Returns:
        The content of `metrics.json`.

    Raises:
        DataError: sentences or encoder are missing or unusable, or a text is in two splits.
        TrainingError: the loss is not finite, macro F1 is below `settings.minimum_f1`, or fewer labels were
            measured than `settings.minimum_labels`; nothing is then written.
    """
    # Its progress bars and its warning about the new head are noise in a stage's log.
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    seed_everything(seed, runtime.threads)
    device = resolve_device(runtime.device)
    names = LabelSpace.load("mafw").names
    splits = load_splits(sentences, names)
    model, tokenizer, labels = load_encoder(
        encoder, names, as_it_is=not settings.max_steps, max_length=settings.max_length
    )
    if settings.max_steps:
        weights = positive_weights(splits["train"].targets, settings.class_weights)
        _fit(
            model,
            tokenizer,
            splits,
            settings,
            device,
            weights=weights,
            half=resolve_dtype(runtime.dtype, device),
            seed=seed,
            checkpoints=checkpoints,
            on_metrics=on_metrics,
        )
        # A weight w on the sentences that have a label shifts what is learned by log w; taken off again, the
        # logits are those of the true frequencies.
        add_to_bias(model, -np.log(weights))
    verifier = EmotionVerifier(
        model.to(device),
        tokenizer,
        labels=labels,
        thresholds=[UNTUNED] * len(labels),
        max_length=settings.max_length,
        # As it is, a classifier knows the words of its own training, which are not at hand.
        vocabulary=Vocabulary.of(splits["train"].sentences) if settings.max_steps else None,
    )
    columns = mafw_columns(labels, names)
    _calibrate(verifier, splits["validation"], columns, settings)
    metrics = _measure(verifier, splits, columns, settings)
    logger.info("verifier: %s", quality(metrics))
    require_quality(metrics, settings.minimum_f1, settings.minimum_labels)
    _write(verifier, metrics, output)
    return metrics


def positive_weights(targets: np.ndarray, kind: str) -> np.ndarray:
    """The weight of sentences with a label relative to those without, float32 [labels].

    Args:
        targets: 0/1 [n, labels].
        kind: `none`: 1; `balanced`: equal sums, within 1 to 10, and 1 for a label that no sentence has.
    """
    positive = targets.sum(axis=0)
    if kind == "none":
        return np.ones(targets.shape[1], dtype=np.float32)
    ratio = (len(targets) - positive) / np.maximum(positive, 1.0)
    return np.where(positive > 0, np.clip(ratio, 1.0, HEAVIEST), 1.0).astype(np.float32)


def load_splits(path: Path, labels: tuple[str, ...]) -> dict[str, Split]:
    """Reads the sentences by split; validation and test hold each text once.

    Raises:
        DataError: a file or split is missing, a label is unknown, or a text is in two splits.
    """
    if not path.is_file():
        raise DataError(f"{path}: sentences not found; run `dvc repro distill` first")
    rows = read_parquet(path, "distill").to_pylist()
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
            chosen = _each_once(chosen)
        if not chosen:
            raise DataError(f"{path}: no sentence in the {name} split; run `dvc repro distill` again")
        targets = np.zeros((len(chosen), len(labels)), dtype=np.float32)
        for index, row in enumerate(chosen):
            for label in row["labels"]:
                if label not in column:
                    raise DataError(f"{path}: clip {row['clip_id']!r} has unknown label {label!r}")
                targets[index, column[label]] = 1.0
        splits[name] = Split([row["sentence"] for row in chosen], targets, [row["source"] for row in chosen])
    return splits


def _each_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per text, with all labels given to it anywhere."""
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = normalize(row["sentence"])
        known = merged.get(key, {"labels": []})["labels"]
        merged[key] = {**row, "labels": list(dict.fromkeys([*known, *row["labels"]]))}
    return list(merged.values())


class _Reporter(TrainerCallback):
    """Passes metrics on, stops at a non-finite loss and completes checkpoints."""

    def __init__(self, on_metrics: OnMetrics, checkpoints: Path, steps: int) -> None:
        self._on_metrics = on_metrics
        self._checkpoints = checkpoints
        self._steps = steps

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        values = {_LOGGED[name]: float(value) for name, value in (logs or {}).items() if name in _LOGGED}
        if not values:
            return
        if not all(np.isfinite(value) for value in values.values()):
            raise TrainingError(
                f"train_erv: loss is not finite at step {state.global_step}; lower train_erv.learning_rate"
            )
        for name in ("loss", "validation_loss"):
            if name in values:
                logger.info("step %d of %d: %s %.4f", state.global_step, self._steps, name, values[name])
        self._on_metrics(values, int(state.global_step))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        mark_complete(self._checkpoints / f"checkpoint-{state.global_step}")


class _EarlyStopping(EarlyStoppingCallback):
    """Also ends a training that resumes from the very checkpoint at which it had ended."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            # One more step runs and is discarded, because the best weights are loaded at the end.
            control.should_training_stop = True


_LOGGED = {
    "loss": "loss",
    "eval_loss": "validation_loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
}


def _fit(
    model: Any,
    tokenizer: Any,
    splits: dict[str, Split],
    settings: TrainErvSettings,
    device: torch.device,
    *,
    weights: np.ndarray,
    half: torch.dtype,
    seed: int,
    checkpoints: Path,
    on_metrics: OnMetrics,
) -> None:
    """Trains the model in place; it ends with the weights of the lowest loss on the validation split."""
    resume = _resumable(checkpoints)
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=4 * settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=max(1, int(WARMUP_SHARE * settings.max_steps)),
        lr_scheduler_type="linear",
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
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
    callbacks: list[TrainerCallback] = [_Reporter(on_metrics, checkpoints, settings.max_steps)]
    if settings.patience is not None:
        callbacks.append(_EarlyStopping(early_stopping_patience=settings.patience))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_rows(splits["train"], tokenizer, settings.max_length),
        eval_dataset=_rows(splits["validation"], tokenizer, settings.max_length),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=_weighted_loss(torch.from_numpy(weights).to(device)),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    if resume is not None:
        logger.info("resuming from %s", resume.name)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    logger.info("lowest loss on the validation split: %.4f", trainer.state.best_metric or float("nan"))


def _resumable(checkpoints: Path) -> Path | None:
    """The newest checkpoint from which training ends as if uninterrupted; None to start over.

    It needs the checkpoint with the lowest loss so far as well. Without that one, `transformers` would go on
    and end with the last weights instead of the best.
    """
    discard_unusable(checkpoints)
    while (newest := latest_checkpoint(checkpoints)) is not None:
        state = TrainerState.load_from_json(str(newest / TRAINER_STATE_NAME))
        best = state.best_model_checkpoint
        if best is None or Path(best).is_dir():
            return newest
        logger.warning("checkpoint %s: the best one before it, %s, is gone: deleted", newest.name, best)
        shutil.rmtree(newest)
    return None


def _rows(split: Split, tokenizer: Any, max_length: int) -> list[dict[str, Any]]:
    encoded = tokenizer(split.sentences, truncation=True, max_length=max_length)["input_ids"]
    return [
        {"input_ids": ids, "labels": target.tolist()}
        for ids, target in zip(encoded, split.targets, strict=True)
    ]


def _weighted_loss(weights: torch.Tensor) -> Callable[..., torch.Tensor]:
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        # float32: half precision has too few digits for the logarithms of rare labels.
        return torch.nn.functional.binary_cross_entropy_with_logits(
            outputs.logits.float(), labels.float(), pos_weight=weights
        )

    return loss


def _calibrate(
    verifier: EmotionVerifier, validation: Split, columns: np.ndarray, settings: TrainErvSettings
) -> None:
    """Fits calibration and thresholds of the MAFW columns; other columns keep theirs."""
    logits = verifier.logits(validation.sentences).numpy()
    fitted = fit_calibration(settings.calibration, logits[:, columns], validation.targets)
    if fitted.curves:
        by_column = dict(zip(columns.tolist(), fitted.curves, strict=True))
        fitted = replace(fitted, curves=tuple(by_column.get(i) for i in range(len(verifier.labels))))
    verifier.calibration = fitted
    limits = np.full(len(verifier.labels), UNTUNED)
    if settings.thresholds == "tuned":
        probabilities = verifier.predict(validation.sentences).numpy()[:, columns]
        limits[columns] = choose_thresholds(probabilities, validation.targets)
    else:
        limits[:] = settings.thresholds
    verifier.thresholds = tuple(limits.tolist())


def _measure(
    verifier: EmotionVerifier, splits: dict[str, Split], columns: np.ndarray, settings: TrainErvSettings
) -> dict[str, Any]:
    test, names = splits["test"], [verifier.labels[column] for column in columns]
    probabilities = verifier.predict(test.sentences).numpy()[:, columns]
    limits = np.asarray(verifier.thresholds, dtype=np.float32)[columns]
    report = classification_report(probabilities, test.targets, limits, names)
    report["by_source"] = {}
    for source in sorted(set(test.sources)):
        rows = [index for index, name in enumerate(test.sources) if name == source]
        part = classification_report(probabilities[rows], test.targets[rows], limits, names)
        report["by_source"][source] = {key: part[key] for key in ("n", "macro_f1", "exact_match")}
    report["fitted"] = {
        "sentences": len(splits["train"].sentences) if settings.max_steps else 0,
        "texts": len({normalize(text) for text in splits["train"].sentences}) if settings.max_steps else 0,
        "calibration": 0 if settings.calibration == "none" else len(splits["validation"].sentences),
        "thresholds": len(splits["validation"].sentences) if settings.thresholds == "tuned" else 0,
    }
    report["calibration"] = settings.calibration
    known = {normalize(text) for split in splits.values() for text in split.sentences}
    report["behaviour"] = check_behaviour(verifier, known)
    return report


def _write(verifier: EmotionVerifier, metrics: dict[str, Any], output: Path) -> None:
    with model_folder(output) as folder:
        verifier.save_pretrained(folder)
        write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", folder / METRICS_FILE)
        write_text(model_card(metrics, verifier), folder / "README.md")
