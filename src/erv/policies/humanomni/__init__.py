"""HumanOmni as native transformers classes; importing this registers them with the Auto classes."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration, HumanOmniModel
from erv.policies.humanomni.processing import HumanOmniProcessor

AutoConfig.register(HumanOmniConfig.model_type, HumanOmniConfig, exist_ok=True)
AutoModelForCausalLM.register(HumanOmniConfig, HumanOmniForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(HumanOmniConfig, HumanOmniForConditionalGeneration, exist_ok=True)
AutoProcessor.register(HumanOmniConfig, HumanOmniProcessor, exist_ok=True)


def load(folder: Path, dtype: torch.dtype) -> tuple[HumanOmniForConditionalGeneration, HumanOmniProcessor]:
    """Model and processor of a policy folder, see `erv.policies.load_policy`."""
    model = HumanOmniForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    return model, HumanOmniProcessor.from_pretrained(folder)


__all__ = [
    "HumanOmniConfig",
    "HumanOmniForConditionalGeneration",
    "HumanOmniModel",
    "HumanOmniProcessor",
    "load",
]
