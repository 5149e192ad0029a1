"""Qwen2.5-Omni's thinker as a policy; importing this registers it with the Auto classes.

Nothing beyond this package's own requirements is needed, torchvision included.
"""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from erv.policies.qwen_omni.configuration import QwenOmniConfig
from erv.policies.qwen_omni.modeling import QwenOmniForConditionalGeneration, QwenOmniModel
from erv.policies.qwen_omni.processing import QwenOmniProcessor
from erv.policies.qwen_omni.released import Geometry, load_released, load_whole

AutoConfig.register(QwenOmniConfig.model_type, QwenOmniConfig, exist_ok=True)
AutoModelForCausalLM.register(QwenOmniConfig, QwenOmniForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(QwenOmniConfig, QwenOmniForConditionalGeneration, exist_ok=True)
AutoProcessor.register(QwenOmniConfig, QwenOmniProcessor, exist_ok=True)


def load(folder: Path, dtype: torch.dtype) -> tuple[QwenOmniForConditionalGeneration, QwenOmniProcessor]:
    """Model and processor of a policy folder, see `erv.policies.load_policy`.

    A released folder is taken with the default `Geometry`; see `load_released` for another.
    """
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind != QwenOmniConfig.model_type:
        return load_released(folder, dtype)
    return load_whole(folder, dtype), QwenOmniProcessor.from_pretrained(folder)


__all__ = [
    "Geometry",
    "QwenOmniConfig",
    "QwenOmniForConditionalGeneration",
    "QwenOmniModel",
    "QwenOmniProcessor",
    "load",
    "load_released",
]
