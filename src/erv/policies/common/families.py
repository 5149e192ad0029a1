"""Which family of policies a checkpoint belongs to, read from its `config.json` alone.

A family is a package beside this one. Only the requested family is imported, so that no stage depends on the
code of another family.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from erv.errors import TrainingError
from erv.model_folders import check_regular

# The folder of each family, and the `model_type`s of the checkpoints it reads.
FAMILIES: dict[str, tuple[str, ...]] = {
    "humanomni": ("humanomni", "HumanOmni_qwen2"),  # our folders, and released ones
    # From a released checkpoint only the thinker is read, not the parts that speak.
    "qwen_omni": ("qwen_omni", "qwen2_5_omni", "qwen2_5_omni_thinker"),
}


def family_module(family: str) -> ModuleType:
    """The package of a family, which has `load(folder, dtype) -> (model, processor)`."""
    return importlib.import_module(f"erv.policies.{family}")


def check_family(folder: Path, family: str) -> None:
    """Refuses a policy folder whose family is not `policy.family`.

    Raises:
        TrainingError: the folder belongs to another family, or holds no policy.
    """
    fault = family_fault(read_config(folder), folder, family)
    if fault is not None:
        raise TrainingError(fault)


def family_fault(config: Mapping[str, Any], folder: Path | str, family: str) -> str | None:
    """What is wrong with the family of a checkpoint; None if it is the expected family.

    Args:
        config: the content of the checkpoint's `config.json`.
        folder: the checkpoint's folder, for the message.
        family: the value of `policy.family`.
    """
    try:
        found = family_of(config, folder)
    except TrainingError as error:
        return str(error)
    if found == family:
        return None
    return (
        f"{folder}: a checkpoint of the family {found} (model_type {config['model_type']}), but policy.family"
        f" is {family}; set policy.family: {found}, or use a checkpoint of {family}"
    )


def family_of(config: Mapping[str, Any], folder: Path | str) -> str:
    """The family that reads a checkpoint: a key of `FAMILIES`.

    Args:
        config: the content of the checkpoint's `config.json`.
        folder: the checkpoint's folder, for the message.

    Raises:
        TrainingError: no family reads it.
    """
    kind = config.get("model_type")
    for family, kinds in FAMILIES.items():
        if kind in kinds:
            return family
    known = ", ".join(kind for kinds in FAMILIES.values() for kind in kinds)
    raise TrainingError(
        f"{folder}/config.json: model_type {kind!r} is not a policy that sees and hears (known: {known});"
        " a text-only model can't be trained on clips; docs/policies.md explains how to add a family"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a policy folder.

    Raises:
        TrainingError: it is missing, or is not a JSON object.
        DataError: the folder holds a pipe or device.
    """
    check_regular(folder)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(
            f"{folder}: no policy here (config.json is missing); run the stage that writes it first"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: not a model's configuration ({error})") from error
    if not isinstance(config, dict):
        raise TrainingError(f"{path}: not a model's configuration (expected a JSON object)")
    return config


__all__ = ["FAMILIES", "check_family", "family_fault", "family_module", "family_of", "read_config"]
