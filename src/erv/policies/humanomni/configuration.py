"""Configuration of HumanOmni: a language model, two towers, a gate encoder, and how they are connected."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from erv.errors import TrainingError
from erv.policies.humanomni.checkpoint_files import CheckpointFiles
from erv.policies.humanomni.released_config import RELEASED_MODEL_TYPE, convert_released

try:
    from transformers.configuration_utils import SubConfigSpec
except ImportError:  # transformers 5.17, say: a configuration makes its parts itself
    SubConfigSpec = None

# The parts, and the model type of one that names none.
_PARTS = {
    "text_config": "qwen2",
    "vision_config": "siglip_vision_model",
    "audio_config": "whisper",
    "gate_config": "bert",
}


@strict
class HumanOmniConfig(PreTrainedConfig):
    """Sizes and token ids of a HumanOmni model.

    Args:
        text_config: Qwen2, the language model.
        vision_config: SigLIP vision tower. `num_hidden_layers` counts only the blocks that are computed:
            HumanOmni reads the output of the second to last block, so the last block is never built.
        audio_config: Whisper; only its encoder is built.
        gate_config: BERT, without a pooler, which reads the instruction and weighs the three visual branches.
        projector_type: "all_in_one_small" (0.5B; an even patch grid) or "all_in_one" (7B; an odd one).
        gate_hidden_size: inner width of the gate; 3584 in every released size.
        audio_pool: how many audio positions are averaged into one token.
        num_frames: frames per clip that the processor prepares; the network takes any number.
        video_token_id: the placeholder that a visual token replaces; one placeholder per token. None means
            that only negative placeholders are read, as in a released checkpoint without our tokenizer.
        audio_token_id: the same for audio tokens.

    `from_pretrained` reads our folders and, without conversion, released ones (see `released_config`).
    """

    model_type = "humanomni"
    # TRL's loader needs it when a class is not one of transformers' own; nothing is loaded through it.
    auto_map: ClassVar[dict[str, str]] = {}
    if SubConfigSpec is None:
        sub_configs: ClassVar[dict[str, Any]] = dict.fromkeys(_PARTS, AutoConfig)
    else:
        sub_configs_defaults: ClassVar[dict[str, Any]] = {
            name: SubConfigSpec(config_class=AutoConfig, model_type=kind) for name, kind in _PARTS.items()
        }

    # Passed in as mappings; afterwards configurations of their own classes.
    text_config: Any = None
    vision_config: Any = None
    audio_config: Any = None
    gate_config: Any = None
    projector_type: Literal["all_in_one_small", "all_in_one"] = "all_in_one_small"
    gate_hidden_size: int = 3584
    audio_pool: int = 3
    num_frames: int = 8
    video_token_id: int | None = None
    audio_token_id: int | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        if SubConfigSpec is None:
            for name, kind in _PARTS.items():
                part = getattr(self, name)
                if part is None or isinstance(part, dict):
                    setattr(self, name, AutoConfig.for_model(**{"model_type": kind, **(part or {})}))
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads as usual, and converts a released configuration and the configurations of its towers."""
        content, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if content.get("model_type") == RELEASED_MODEL_TYPE:
            content = convert_released(content, CheckpointFiles(pretrained_model_name_or_path, **kwargs))
        return content, unused

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a frame."""
        side: int = self.vision_config.image_size // self.vision_config.patch_size
        return side

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens per frame."""
        return ((self.patches_per_side + 1) // 2) ** 2

    @property
    def audio_tokens(self) -> int:
        """Audio tokens per clip; the window is fixed, however short the sound."""
        tokens: int = self.audio_config.max_source_positions // self.audio_pool
        return tokens


class ReleasedHumanOmniConfig(HumanOmniConfig):
    """Registers the released `model_type` with `AutoConfig`; what it reads becomes a `HumanOmniConfig`."""

    model_type = RELEASED_MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Converts a released `config.json` of the checkpoint at `name_or_path`.

        `AutoConfig` passes nothing else on, so files on the hub are looked up in the standard cache.
        """
        name = kwargs.get("name_or_path")
        if name is None:
            raise TrainingError(
                "a released HumanOmni configuration alone doesn't give the sizes of its towers: load it with"
                " from_pretrained on the checkpoint"
            )
        return HumanOmniConfig.from_dict(
            convert_released(config_dict, CheckpointFiles(name, **kwargs)), **kwargs
        )


__all__ = ["HumanOmniConfig", "ReleasedHumanOmniConfig"]
