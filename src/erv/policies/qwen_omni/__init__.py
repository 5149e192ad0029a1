"""Qwen2.5-Omni's thinker as a policy; importing this registers it with the Auto classes.

It needs no requirements beyond those of `erv`; in particular, no torchvision.
"""

from pathlib import Path

import torch

from erv.policies.common.families import read_config
from erv.policies.common.modeling import register
from erv.policies.qwen_omni.configuration import QwenOmniConfig
from erv.policies.qwen_omni.modeling import QwenOmniForConditionalGeneration, QwenOmniModel
from erv.policies.qwen_omni.processing import QwenOmniProcessor
from erv.policies.qwen_omni.released import Geometry, load_released, load_whole

register(QwenOmniConfig, QwenOmniForConditionalGeneration, QwenOmniProcessor)


def load(folder: Path, dtype: torch.dtype) -> tuple[QwenOmniForConditionalGeneration, QwenOmniProcessor]:
    """Model and processor of a policy folder; see `erv.policies.load_policy`.

    A released folder gets the default `Geometry`; use `load_released` for another one.
    """
    if read_config(folder)["model_type"] != QwenOmniConfig.model_type:
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
