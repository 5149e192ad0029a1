"""HumanOmni without its head: SigLIP and Whisper features spliced into Qwen2, and an instruction gate.

The towers are frozen: `encode_clips` computes their features once, and everything after them trains. Rows may
share features: projectors and gate run once per clip, and `clip_index` says which clip each row of the batch
shows, so that the G completions of a prompt cost one pass.
"""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import BertModel, Cache, PreTrainedModel, Qwen2Model
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from erv.policies.common.splice import require_features, rows_of_clips, splice
from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.loading import LoadsReleased
from erv.policies.humanomni.projector import AudioProjector, Gate, VisualProjector
from erv.policies.humanomni.splicing import AUDIO_ID, IMAGE_ID, VIDEO_ID, placeholders
from erv.policies.humanomni.towers import FrameTower

# Inputs that belong to clips, not to rows.
CLIP_INPUTS = (
    "pixel_values",
    "input_features",
    "video_features",
    "audio_features",
    "gate_input_ids",
    "gate_attention_mask",
)
_CLIPS_AT_ONCE = 32  # bounds the memory of the towers; results don't depend on it beyond rounding


def _is_packed(
    attention_mask: torch.Tensor | None, position_ids: torch.Tensor | None, past_key_values: Cache | None
) -> bool:
    """Whether rows hold several examples. Like transformers' own masks, looks for positions that restart."""
    if attention_mask is not None or position_ids is None or past_key_values is not None:
        return False
    return bool((position_ids.diff(dim=-1) != 1).any())


class HumanOmniPreTrainedModel(LoadsReleased, PreTrainedModel):
    """Shared behaviour: names, attention kernels, loading of our folders and of released checkpoints."""

    config: HumanOmniConfig
    base_model_prefix = "model"
    input_modalities = ("video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = [
        "Qwen2DecoderLayer",
        "SiglipEncoderLayer",
        "WhisperEncoderLayer",
    ]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True


class HumanOmniModel(HumanOmniPreTrainedModel):
    """Towers, projectors, gate and language model, without the head."""

    def __init__(self, config: HumanOmniConfig) -> None:
        super().__init__(config)
        hidden = config.text_config.hidden_size
        self.vision_tower = FrameTower._from_config(config.vision_config)
        self.audio_tower = WhisperEncoder._from_config(config.audio_config)
        self.gate_encoder = BertModel._from_config(config.gate_config, add_pooling_layer=False)
        self.gate = Gate(config.gate_config.hidden_size, config.gate_hidden_size)
        self.visual_projector = VisualProjector(
            config.vision_config.hidden_size, hidden, config.projector_type
        )
        self.audio_projector = AudioProjector(config.audio_config.d_model, hidden, config.audio_pool)
        self.language_model = Qwen2Model._from_config(config.text_config)
        self.post_init()
        self.freeze_towers()

    def train(self, mode: bool = True) -> "HumanOmniModel":
        """Sets the mode of everything but the towers, which stay in evaluation mode and so skip dropout."""
        super().train(mode)
        self.vision_tower.eval()
        self.audio_tower.eval()
        return self

    def freeze_towers(self) -> None:
        """Freezes both towers: the method never trains them with the language model."""
        self.vision_tower.requires_grad_(False)
        self.audio_tower.requires_grad_(False)

    def freeze_projectors(self) -> None:
        """Freezes what is between the towers and the language model: projectors, gate and gate encoder."""
        for part in (self.visual_projector, self.audio_projector, self.gate, self.gate_encoder):
            part.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's embedding table."""
        table: nn.Module = self.language_model.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's embedding table."""
        self.language_model.set_input_embeddings(value)

    @torch.no_grad()
    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Runs the frozen towers, without gradient.

        Args:
            pixel_values: [clips, frames, 3, S, S] float in -1..1, or None.
            input_features: log-mel [clips, mels, steps] float (or [rows, clips, mels, steps]), or None.

        Returns:
            `video_features` [clips, frames, patches, width] and `audio_features` [clips, positions, width]
            for the inputs that were given. These are the towers' outputs; the projectors, which train, come
            after them.
        """
        features: dict[str, torch.Tensor] = {}
        if pixel_values is not None:
            pixels = pixel_values.to(self.device, self.dtype)
            encoded = [
                self.vision_tower(chunk.flatten(0, 1)).unflatten(0, chunk.shape[:2])
                for chunk in pixels.split(_CLIPS_AT_ONCE)
            ]
            features["video_features"] = torch.cat(encoded)
        if input_features is not None:
            mels = input_features.to(self.device, self.dtype)
            if mels.ndim == 4:  # as the released scoring passes them: [rows, clips of a row, mels, steps]
                mels = mels.flatten(0, 1)
            encoded = [self.audio_tower(chunk).last_hidden_state for chunk in mels.split(_CLIPS_AT_ONCE)]
            features["audio_features"] = torch.cat(encoded)
        return features

    def gate_weights(
        self, gate_input_ids: torch.Tensor, gate_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Shares of the visual branches, [rows, 3], from instructions [rows, L]."""
        encoded = self.gate_encoder(input_ids=gate_input_ids, attention_mask=gate_attention_mask)
        shares: torch.Tensor = self.gate(encoded.last_hidden_state[:, 0])
        return shares

    def visual_tokens(
        self,
        video_features: torch.Tensor,
        gate_input_ids: torch.Tensor | None,
        gate_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Projects clips: [clips, frames, patches, width] to [clips, tokens, hidden].

        One gate row may serve all clips, since the question is the same for all of them.
        """
        if gate_input_ids is None:
            raise ValueError(
                "video features need gate_input_ids; take them from HumanOmniProcessor.gate_inputs"
            )
        clips = video_features.shape[0]
        weights = self.gate_weights(gate_input_ids, gate_attention_mask)
        if weights.shape[0] not in (1, clips):
            raise ValueError(
                f"gate_input_ids has {weights.shape[0]} rows, expected 1 or one per clip ({clips})"
            )
        tokens: torch.Tensor = self.visual_projector(video_features.to(self.dtype), weights.expand(clips, -1))
        return tokens

    def embed(
        self,
        input_ids: torch.Tensor,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        gate_input_ids: torch.Tensor | None = None,
        gate_attention_mask: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings [rows, length, hidden] with the clips' tokens at their placeholders.

        The arguments are those of `forward`. Placeholders must be expanded already; they are tokens of the
        vocabulary or negative ids.

        Raises:
            ValueError: placeholders and features don't fit together, or a prompt's modality has none.
        """
        clip_index = rows_of_clips(input_ids, clip_index)
        embeddings: torch.Tensor = self.get_input_embeddings()(input_ids.clamp(min=0))
        mask = placeholders(input_ids, self.config.video_token_id, (VIDEO_ID, IMAGE_ID))
        if video_features is None:
            require_features(mask, "video")
        else:
            tokens = self.visual_tokens(video_features, gate_input_ids, gate_attention_mask)
            embeddings = splice(embeddings, mask, tokens, clip_index, "video")
        mask = placeholders(input_ids, self.config.audio_token_id, (AUDIO_ID,))
        if audio_features is None:
            require_features(mask, "audio")
        else:
            tokens = self.audio_projector(audio_features.to(self.dtype))
            embeddings = splice(embeddings, mask, tokens, clip_index, "audio")
        return embeddings

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        gate_input_ids: torch.Tensor | None = None,
        gate_attention_mask: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of the spliced sequence.

        Args:
            input_ids: [rows, length], one placeholder per token.
            attention_mask: [rows, length]; 0 marks padding on either side.
            position_ids: [rows, length]; None counts from 0. In packed rows, which hold several examples,
                positions restart at 0 with each example. Packed rows come without `attention_mask`; their
                examples don't see each other.
            past_key_values: the cache of a generation.
            inputs_embeds: [rows, length, hidden] instead of `input_ids`; then nothing is spliced.
            use_cache: whether to return a cache.
            pixel_values: [clips, frames, 3, S, S], encoded here unless `video_features` are given.
            input_features: [clips, mels, steps], encoded here unless `audio_features` are given.
            video_features: [clips, frames, patches, width] from `encode_clips`.
            audio_features: [clips, positions, width] from `encode_clips`.
            gate_input_ids: [1 or clips, L], the bare instruction in the gate encoder's tokens.
            gate_attention_mask: [1 or clips, L].
            clip_index: [rows] long, the clip that each row shows; None means row i shows clip i. For packed
                rows [rows, length], the clip that each token shows.
            **kwargs: passed on to the language model.

        Raises:
            ValueError: placeholders and features don't fit together.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            encoded = self.encode_clips(
                pixel_values if video_features is None else None,
                input_features if audio_features is None else None,
            )
            video = encoded.get("video_features", video_features)
            audio = encoded.get("audio_features", audio_features)
            started = past_key_values is not None and past_key_values.get_seq_length() > 0
            if started and video is None and audio is None:
                # The cache holds the clips; looking for placeholders in each token would wait for the GPU.
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self.embed(
                    input_ids, video, audio, gate_input_ids, gate_attention_mask, clip_index
                )
        if _is_packed(attention_mask, position_ids, past_key_values):
            if use_cache:
                raise ValueError(
                    "packed rows (position_ids that start again, no attention_mask) can't fill a cache:"
                    " leave use_cache out"
                )
            # With a cache transformers doesn't look for packed rows, and examples would see each other.
            use_cache = False
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


__all__ = ["CLIP_INPUTS", "HumanOmniModel", "HumanOmniPreTrainedModel"]
