"""HumanOmni as native transformers classes; importing this registers them with the Auto classes."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration, HumanOmniModel
from erv.policies.humanomni.processing import HumanOmniProcessor

AutoConfig.register(HumanOmniConfig.model_type, HumanOmniConfig, exist_ok=True)
AutoModelForCausalLM.register(HumanOmniConfig, HumanOmniForConditionalGeneration, exist_ok=True)
AutoModelForImageTextToText.register(HumanOmniConfig, HumanOmniForConditionalGeneration, exist_ok=True)
AutoProcessor.register(HumanOmniConfig, HumanOmniProcessor, exist_ok=True)

__all__ = ["HumanOmniConfig", "HumanOmniForConditionalGeneration", "HumanOmniModel", "HumanOmniProcessor"]
