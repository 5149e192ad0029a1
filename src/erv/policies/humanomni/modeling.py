"""HumanOmni: SigLIP and Whisper features spliced into Qwen2, with an instruction gate over visual branches.

Towers are frozen: `encode_clips` computes their features once, everything after them trains. Features may
be shared: projectors and gate run once per clip, and `clip_index` says which clip each row of the batch is
on, so that the G completions of a prompt cost one pass. `input_ids` come with one placeholder per token.

The contract with TRL's trainers: `base_model_prefix` is "model", the inner model takes every modality
argument and returns `last_hidden_state`, and features are dropped after the first step of a generation.
"""

from typing import Any, ClassVar

import torch
from torch import nn
from transformers import BertModel, Cache, GenerationMixin, PreTrainedModel, Qwen2Model
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.siglip.configuration_siglip import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import (
    SiglipEncoder,
    SiglipPreTrainedModel,
    SiglipVisionEmbeddings,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.projector import AudioProjector, Gate, VisualProjector

# What a generation needs only once, when the prompt is read.
_PREFILL_ONLY = (
    "pixel_values",
    "input_features",
    "video_features",
    "audio_features",
    "gate_input_ids",
    "gate_attention_mask",
    "clip_index",
)
_CLIPS_AT_ONCE = 32  # bounds the memory of the towers; results don't depend on it beyond rounding


class FrameTower(SiglipPreTrainedModel):
    """SigLIP without its last block, closing norm and head: HumanOmni reads what comes before them."""

    config: SiglipVisionConfig
    main_input_name = "pixel_values"

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        self.embeddings = SiglipVisionEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """`pixel_values`: [frames, 3, S, S] in -1..1; returns [frames, patches, width]."""
        return self.encoder(inputs_embeds=self.embeddings(pixel_values)).last_hidden_state


class HumanOmniPreTrainedModel(PreTrainedModel):
    """Shared behaviour: names, attention kernels, frozen towers."""

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

    def freeze_towers(self) -> None:
        """Takes the gradients off both towers: the method never trains them with the language model."""
        self.vision_tower.requires_grad_(False)
        self.audio_tower.requires_grad_(False)

    def freeze_projectors(self) -> None:
        """Takes the gradients off all between towers and language model: projectors, gate and its encoder."""
        for part in (self.visual_projector, self.audio_projector, self.gate, self.gate_encoder):
            part.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """The language model's table."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's table."""
        self.language_model.set_input_embeddings(value)

    @torch.no_grad()
    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Runs the frozen towers, without gradient.

        Args:
            pixel_values: [clips, frames, 3, S, S] float in -1..1, or None.
            input_features: log-mel [clips, mels, steps] float, or None.

        Returns:
            `video_features` [clips, frames, patches, width] and `audio_features` [clips, positions, width],
            for what was given: the towers' outputs, before the projectors, which train.
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
            encoded = [self.audio_tower(chunk).last_hidden_state for chunk in mels.split(_CLIPS_AT_ONCE)]
            features["audio_features"] = torch.cat(encoded)
        return features

    def gate_weights(
        self, gate_input_ids: torch.Tensor, gate_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Shares of the visual branches, [rows, 3], from instructions [rows, L]."""
        encoded = self.gate_encoder(input_ids=gate_input_ids, attention_mask=gate_attention_mask)
        return self.gate(encoded.last_hidden_state[:, 0])

    def visual_tokens(
        self,
        video_features: torch.Tensor,
        gate_input_ids: torch.Tensor | None,
        gate_attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Projects clips: [clips, frames, patches, width] to [clips, tokens, hidden].

        One gate row may serve all clips: they are all asked the same question.
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
        return self.visual_projector(video_features.to(self.dtype), weights.expand(clips, -1))

    def _splice(
        self,
        embeddings: torch.Tensor,
        input_ids: torch.Tensor,
        tokens: torch.Tensor,
        token_id: int | None,
        clip_index: torch.Tensor,
        modality: str,
    ) -> torch.Tensor:
        """Puts each row's clip tokens at its placeholders; a row without any placeholder takes none."""
        mask = torch.eq(input_ids, -1 if token_id is None else token_id)
        counts = mask.sum(dim=1)
        rows = counts > 0
        expected = tokens.shape[1]
        if bool((counts[rows] != expected).any()):
            found = sorted(set(counts[rows].tolist()))
            raise ValueError(f"a row has {found} {modality} placeholders, expected 0 or {expected}")
        source = tokens[clip_index[rows]].to(embeddings.dtype)
        return embeddings.masked_scatter(mask.unsqueeze(-1), source)

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
            input_ids: [rows, length], placeholders expanded.
            attention_mask: [rows, length]; 0 marks padding on either side.
            position_ids: [rows, length]; None counts from 0.
            past_key_values: the cache of a generation.
            inputs_embeds: [rows, length, hidden] instead of `input_ids`; then nothing is spliced.
            use_cache: whether to return a cache.
            pixel_values: [clips, frames, 3, S, S], encoded here unless `video_features` are given.
            input_features: [clips, mels, steps], encoded here unless `audio_features` are given.
            video_features: [clips, frames, patches, width] from `encode_clips`.
            audio_features: [clips, positions, width] from `encode_clips`.
            gate_input_ids: [1 or clips, L], the bare instruction in the gate encoder's tokens.
            gate_attention_mask: [1 or clips, L].
            clip_index: [rows] long, the clip that each row shows; None means row i shows clip i.
            **kwargs: passed on to the language model.

        Raises:
            ValueError: placeholders and features don't fit together.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            encoded = self.encode_clips(
                pixel_values if video_features is None else None,
                input_features if audio_features is None else None,
            )
            video_features = encoded.get("video_features", video_features)
            audio_features = encoded.get("audio_features", audio_features)
            if clip_index is None:
                clip_index = torch.arange(input_ids.shape[0], device=input_ids.device)
            if video_features is not None:
                tokens = self.visual_tokens(video_features, gate_input_ids, gate_attention_mask)
                token_id = self.config.video_token_id
                inputs_embeds = self._splice(inputs_embeds, input_ids, tokens, token_id, clip_index, "video")
            if audio_features is not None:
                tokens = self.audio_projector(audio_features.to(self.dtype))
                token_id = self.config.audio_token_id
                inputs_embeds = self._splice(inputs_embeds, input_ids, tokens, token_id, clip_index, "audio")
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class HumanOmniForConditionalGeneration(HumanOmniPreTrainedModel, GenerationMixin):
    """HumanOmni with its language-model head."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "lm_head.weight": "model.language_model.embed_tokens.weight"
    }

    def __init__(self, config: HumanOmniConfig) -> None:
        super().__init__(config)
        self.model = HumanOmniModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    @property
    def placeholder_ids(self) -> list[int]:
        """Tokens that stand for frames and sound; generation never writes one."""
        ids = (self.config.video_token_id, self.config.audio_token_id)
        return [token for token in ids if token is not None]

    def freeze_towers(self) -> None:
        """See `HumanOmniModel.freeze_towers`."""
        self.model.freeze_towers()

    def freeze_question_encoder(self) -> None:
        """Takes the gradients off the gate's text encoder."""
        self.model.gate_encoder.requires_grad_(False)

    def freeze_projectors(self) -> None:
        """See `HumanOmniModel.freeze_projectors`."""
        self.model.freeze_projectors()

    def get_decoder(self) -> nn.Module:
        """The language model."""
        return self.model.language_model

    def get_input_embeddings(self) -> nn.Module:
        """The language model's table."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's table."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The head, which TRL multiplies hidden states by itself."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replaces the head."""
        self.lm_head = value

    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """See `HumanOmniModel.encode_clips`."""
        return self.model.encode_clips(pixel_values, input_features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        gate_input_ids: torch.Tensor | None = None,
        gate_attention_mask: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [rows, length, vocabulary], and the shifted cross entropy when `labels` are given.

        `logits_to_keep` computes only the last positions (an integer) or the given ones (an index tensor);
        labels must then be of the same length. The other arguments are those of `HumanOmniModel.forward`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            input_features=input_features,
            video_features=video_features,
            audio_features=audio_features,
            gate_input_ids=gate_input_ids,
            gate_attention_mask=gate_attention_mask,
            clip_index=clip_index,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            vocabulary = self.config.text_config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocabulary, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The stock preparation; the clip's inputs are dropped once the cache holds the prompt."""
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in _PREFILL_ONLY:
                inputs.pop(name, None)
        return inputs


__all__ = ["HumanOmniForConditionalGeneration", "HumanOmniModel", "HumanOmniPreTrainedModel"]
