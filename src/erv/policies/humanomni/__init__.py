"""HumanOmni as native transformers classes; importing this registers them with the Auto classes.

The Auto classes then read our folders (`model_type` "humanomni") and, without conversion, released ones
("HumanOmni_qwen2").
"""

from pathlib import Path

import torch
from transformers import AutoConfig

from erv.errors import TrainingError
from erv.policies.common.modeling import register
from erv.policies.humanomni.backbone import HumanOmniModel
from erv.policies.humanomni.configuration import HumanOmniConfig, ReleasedHumanOmniConfig
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration
from erv.policies.humanomni.processing import HumanOmniProcessor

register(HumanOmniConfig, HumanOmniForConditionalGeneration, HumanOmniProcessor)
AutoConfig.register(ReleasedHumanOmniConfig.model_type, ReleasedHumanOmniConfig, exist_ok=True)


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
    model = HumanOmniForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    return model, HumanOmniProcessor.from_pretrained(folder)


__all__ = [
    "HumanOmniConfig",
    "HumanOmniForConditionalGeneration",
    "HumanOmniModel",
    "HumanOmniProcessor",
    "load",
]
