"""A policy: the model that answers, with the processor that prepares what it sees and hears."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from erv.errors import TrainingError
from erv.policies.humanomni import HumanOmniForConditionalGeneration, HumanOmniProcessor


@dataclass
class Policy:
    """A model and its processor, loaded together and saved together."""

    model: HumanOmniForConditionalGeneration
    processor: HumanOmniProcessor

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.device

    def save(self, folder: Path) -> None:
        """Writes a `from_pretrained` folder: written beside it, then renamed: whole or absent."""
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.model.save_pretrained(partial)
        self.processor.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)


def load_policy(folder: str | Path, device: str | torch.device = "cpu", dtype: str = "float32") -> Policy:
    """Loads a policy folder in evaluation mode.

    Args:
        folder: what `Policy.save` wrote.
        device: torch device.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        TrainingError: the folder is not a policy.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise TrainingError(
            f"{folder}: no policy here (config.json is missing); run the stage that writes it first"
        )
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.model.freeze_towers()  # loading makes every weight trainable
    processor = AutoProcessor.from_pretrained(folder)
    return Policy(model=model.to(device).eval(), processor=processor)
