"""HumanOmni as native transformers classes; importing this registers them with the Auto classes.

The Auto classes then read our folders (`model_type` "humanomni") and, without conversion, released ones
("HumanOmni_qwen2").
"""

from transformers import AutoConfig

from erv.policies.common.modeling import register
from erv.policies.humanomni.backbone import HumanOmniModel
from erv.policies.humanomni.configuration import HumanOmniConfig, ReleasedHumanOmniConfig
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration
from erv.policies.humanomni.policy_folder import load
from erv.policies.humanomni.processing import HumanOmniProcessor

register(HumanOmniConfig, HumanOmniForConditionalGeneration, HumanOmniProcessor)
AutoConfig.register(ReleasedHumanOmniConfig.model_type, ReleasedHumanOmniConfig, exist_ok=True)

__all__ = [
    "HumanOmniConfig",
    "HumanOmniForConditionalGeneration",
    "HumanOmniModel",
    "HumanOmniProcessor",
    "load",
]
