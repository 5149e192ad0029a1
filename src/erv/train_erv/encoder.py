"""The encoder that the verifier is trained from: a plain one with a new head, or a classifier of emotions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from erv.errors import DataError
from erv.model_folders import load_part
from erv.verifier.goemotions import column_names
from erv.verifier.loading import check_length, load_classifier

Loaded = tuple[Any, Any, tuple[str, ...]]


def load_encoder(folder: Path, names: tuple[str, ...], *, as_it_is: bool, max_length: int) -> Loaded:
    """Loads an encoder as a multi-label classifier.

    Args:
        folder: `from_pretrained` folder with its tokenizer.
        names: the labels wanted, in order.
        as_it_is: keep the head with all its outputs, for a classifier that is not trained further.
        max_length: tokens that it must be able to read.

    Returns:
        Model, tokenizer and a label per output. If the folder has no head for these labels, the head is new.
        The head of a classifier of the GoEmotions labels is reduced to the outputs for `names`, unless
        `as_it_is`.

    Raises:
        DataError: there is no encoder, it can't be loaded or reads too few tokens, or `as_it_is` is set and
            there is no head for the labels.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no encoder in it; pin a base source with encoder/config.json")
    remedy = "pin a base source whose encoder/ is a complete save_pretrained folder, tokenizer included"
    try:
        config = load_part(AutoConfig, folder)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / 'config.json'}: can't be read ({' '.join(str(error).split())[:200]}); {remedy}"
        ) from error
    known = _labels_of(config, names)
    if as_it_is and known is None:
        raise DataError(
            f"{folder}: not a classifier of the MAFW or GoEmotions labels, so it can't be used as it is; set"
            " train_erv.max_steps above 0"
        )
    wanted = known or names
    model, tokenizer = load_classifier(
        folder,
        remedy,
        new_head=known is None,
        num_labels=len(wanted),
        problem_type="multi_label_classification",
        id2label=dict(enumerate(wanted)),
        label2id={label: index for index, label in enumerate(wanted)},
    )
    _last_layer(model)  # fail now rather than after hours
    check_length(model, max_length, "train_erv.max_length")
    # A folder's path would otherwise be saved with the model.
    model.config._name_or_path = ""
    model.name_or_path = ""
    if not as_it_is and wanted != names:
        _keep_outputs(model, [wanted.index(name) for name in names], names)
        wanted = names
    return model, tokenizer, wanted


def add_to_bias(model: Any, shift: np.ndarray) -> None:
    """Adds an offset to the logits of each label; float [labels]."""
    layer = _last_layer(model)
    with torch.no_grad():
        layer.bias.add_(torch.from_numpy(np.asarray(shift, dtype=np.float32)).to(layer.bias.device))


def _labels_of(config: Any, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """The labels of a saved classifier's outputs; None for an encoder without a known head."""
    if not any("ForSequenceClassification" in kind for kind in config.architectures or ()):
        return None
    own = tuple(str(config.id2label[index]) for index in sorted(config.id2label))
    return names if own == names else column_names(config.id2label)


def _keep_outputs(model: Any, outputs: list[int], names: tuple[str, ...]) -> None:
    layer = _last_layer(model)
    layer.weight = torch.nn.Parameter(layer.weight.detach()[outputs].clone())
    layer.bias = torch.nn.Parameter(layer.bias.detach()[outputs].clone())
    layer.out_features = len(names)
    model.num_labels = model.config.num_labels = len(names)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {label: index for index, label in enumerate(names)}


def _last_layer(model: Any) -> torch.nn.Linear:
    """The layer that outputs the logits, whatever the architecture calls it."""
    found = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == model.config.num_labels
    ]
    if not found or found[-1].bias is None:
        raise DataError(
            f"{type(model).__name__}: no layer with a bias gives its {model.config.num_labels} logits; use"
            " another architecture as encoder"
        )
    return found[-1]
