"""Qwen2.5-Omni's thinker as a policy; importing this registers it with the Auto classes.

It needs no requirements beyond those of `erv`; in particular, no torchvision.
"""

from erv.policies.common.modeling import register
from erv.policies.qwen_omni.configuration import QwenOmniConfig
from erv.policies.qwen_omni.modeling import QwenOmniForConditionalGeneration, QwenOmniModel
from erv.policies.qwen_omni.policy_folder import load
from erv.policies.qwen_omni.processing import QwenOmniProcessor
from erv.policies.qwen_omni.released import Geometry, load_released

register(QwenOmniConfig, QwenOmniForConditionalGeneration, QwenOmniProcessor)

__all__ = [
    "Geometry",
    "QwenOmniConfig",
    "QwenOmniForConditionalGeneration",
    "QwenOmniModel",
    "QwenOmniProcessor",
    "load",
    "load_released",
]
