"""Loads a policy folder of Qwen2.5-Omni, or a released one."""

from __future__ import annotations

from pathlib import Path

import torch

from erv.model_folders import load_part
from erv.policies.common.families import read_config
from erv.policies.qwen_omni.configuration import QwenOmniConfig
from erv.policies.qwen_omni.modeling import QwenOmniForConditionalGeneration
from erv.policies.qwen_omni.processing import QwenOmniProcessor
from erv.policies.qwen_omni.released import load_released, load_whole


def load(folder: Path, dtype: torch.dtype) -> tuple[QwenOmniForConditionalGeneration, QwenOmniProcessor]:
    """Model and processor of a policy folder; see `erv.policies.load_policy`.

    A released folder gets the default `Geometry`; use `load_released` for another one.
    """
    if read_config(folder)["model_type"] != QwenOmniConfig.model_type:
        return load_released(folder, dtype)
    return load_whole(folder, dtype), load_part(QwenOmniProcessor, folder)
