"""Loads a policy folder of HumanOmni."""

from __future__ import annotations

from pathlib import Path

import torch

from erv.errors import TrainingError
from erv.model_folders import load_model, load_part
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration
from erv.policies.humanomni.processing import HumanOmniProcessor


def load(folder: Path, dtype: torch.dtype) -> tuple[HumanOmniForConditionalGeneration, HumanOmniProcessor]:
    """Model and processor of a policy folder; see `erv.policies.load_policy`.

    Raises:
        TrainingError: the folder has a model but no processor, like a released checkpoint.
    """
    if not (folder / "processor_config.json").is_file():
        raise TrainingError(
            f"{folder}: no processor here (processor_config.json is missing), as in a released checkpoint;"
            " convert it to a policy folder once, see docs/policies.md"
        )
    model = load_model(HumanOmniForConditionalGeneration, folder, dtype=dtype)
    return model, load_part(HumanOmniProcessor, folder)
