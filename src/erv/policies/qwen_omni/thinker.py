"""The thinker without and with its head, arranged as newer versions of transformers do, under older ones too.

Transformers 5.17 builds towers, language model and head side by side, in one class; later the first three are
a model of their own, from which ours derives, and which names the weights.
"""

from typing import Any

from transformers import Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as omni


class _Thinker(omni.Qwen2_5OmniPreTrainedModelForConditionalGeneration):
    """Towers and language model."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.audio_tower = omni.Qwen2_5OmniAudioEncoder._from_config(config.audio_config)
        self.visual = omni.Qwen2_5OmniVisionEncoder._from_config(config.vision_config)
        self.language_model = omni.Qwen2_5OmniThinkerTextModel._from_config(config.text_config)
        self.post_init()

    get_video_features = Qwen2_5OmniThinkerForConditionalGeneration.get_video_features
    get_audio_features = Qwen2_5OmniThinkerForConditionalGeneration.get_audio_features


class _WithHead(Qwen2_5OmniThinkerForConditionalGeneration):
    """The head, and a place for the model."""

    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        del self.audio_tower, self.visual  # they are the model's

    def get_decoder(self) -> Any:
        """The language model."""
        return self.model.get_decoder()


_IS_APART = hasattr(omni, "Qwen2_5OmniThinkerModel")
Thinker: Any = omni.Qwen2_5OmniThinkerModel if _IS_APART else _Thinker
WithHead: Any = Qwen2_5OmniThinkerForConditionalGeneration if _IS_APART else _WithHead

__all__ = ["Thinker", "WithHead"]
