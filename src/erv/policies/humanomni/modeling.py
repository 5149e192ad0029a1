"""HumanOmni: the towers, projectors and gate of `backbone`, plus the head and generation.

`input_ids` hold either placeholders of the vocabulary, one per token, as our chat template writes them, or
the released negative ids, one per clip, which are expanded here.

The contract with TRL's trainers: `base_model_prefix` is "model", the inner model takes every modality
argument and returns `last_hidden_state`, and features are dropped after the first step of a generation.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from transformers import Cache, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from erv.policies.common.modeling import ConditionedOnClips
from erv.policies.humanomni.backbone import CLIP_INPUTS, HumanOmniModel, HumanOmniPreTrainedModel
from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.splicing import ExpandedRows, expand_rows


class HumanOmniForConditionalGeneration(ConditionedOnClips, HumanOmniPreTrainedModel, GenerationMixin):
    """HumanOmni with its language-model head."""

    clip_inputs = CLIP_INPUTS

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
        """Ids of the tokens that stand for frames and sound; generation never produces one."""
        ids = (self.config.video_token_id, self.config.audio_token_id)
        return [token for token in ids if token is not None]

    def freeze_towers(self) -> None:
        """See `HumanOmniModel.freeze_towers`."""
        self.model.freeze_towers()

    def freeze_question_encoder(self) -> None:
        """Freezes the gate's text encoder."""
        self.model.gate_encoder.requires_grad_(False)

    def freeze_projectors(self) -> None:
        """See `HumanOmniModel.freeze_projectors`."""
        self.model.freeze_projectors()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's embedding table."""
        table: nn.Module = self.model.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the language model's embedding table."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The head; TRL itself multiplies the hidden states by it."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replaces the head."""
        self.lm_head = value

    def encode_clips(
        self, pixel_values: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """See `HumanOmniModel.encode_clips`."""
        features: dict[str, torch.Tensor] = self.model.encode_clips(pixel_values, input_features)
        return features

    def expand_placeholders(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        pixel_values: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        side: Literal["keep", "left"] = "keep",
    ) -> ExpandedRows:
        """Expands released placeholder ids as `forward` does; see `splicing.expand_rows`.

        Only the shapes of the media are read: the frames per clip determine how many tokens `<image>` and
        `<video>` become.
        """
        frames = video_features if video_features is not None else pixel_values
        sound = audio_features if audio_features is not None else input_features
        return expand_rows(
            input_ids,
            attention_mask,
            labels,
            None if frames is None else frames.shape[1] * self.config.tokens_per_frame,
            None if sound is None else self.config.audio_tokens,
            side=side,
        )

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

        Released placeholder ids (-200, -201, -202, one per clip) are expanded first, so that `length` grows;
        `labels` and `attention_mask` then have the shape of the unexpanded ids. `logits_to_keep` limits the
        computation to the last positions (an integer) or to the given ones (an index tensor); labels must
        then have the same length. The other arguments are those of `HumanOmniModel.forward`.
        """
        started = past_key_values is not None and past_key_values.get_seq_length() > 0
        if input_ids is not None and not started and bool((input_ids < 0).any()):
            if position_ids is not None:
                raise ValueError(
                    "position_ids can't be given with negative placeholders, because the model expands them;"
                    " pass the rows that expand_placeholders returns"
                )
            rows = self.expand_placeholders(
                input_ids,
                attention_mask,
                labels,
                pixel_values=pixel_values,
                input_features=input_features,
                video_features=video_features,
                audio_features=audio_features,
            )
            input_ids, attention_mask, labels = rows.input_ids, rows.attention_mask, rows.labels
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
        return self.with_head(outputs, labels, logits_to_keep, **kwargs)

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Any:
        """The stock generation, except that clips are encoded only once.

        With released placeholder ids (negative, one per clip) the prompt is passed as embeddings, as in the
        released code: padding moves to the left, and only new tokens are returned. Otherwise the prompt must
        be padded on the left and have one placeholder per token, and it is returned before the new tokens.
        """
        pixels, sound = kwargs.pop("pixel_values", None), kwargs.pop("input_features", None)
        kwargs |= self.encode_clips(
            pixels if kwargs.get("video_features") is None else None,
            sound if kwargs.get("audio_features") is None else None,
        )
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if ids is None or not bool((ids < 0).any()):
            return super().generate(inputs, generation_config, **kwargs)
        kwargs.pop("input_ids", None)
        media = {name: kwargs.pop(name, None) for name in (*CLIP_INPUTS, "clip_index")}
        features = {name: media[name] for name in ("video_features", "audio_features")}
        rows = self.expand_placeholders(ids, kwargs.pop("attention_mask", None), **features, side="left")
        gate = {name: media[name] for name in ("gate_input_ids", "gate_attention_mask", "clip_index")}
        embeddings = self.model.embed(rows.input_ids, **features, **gate)
        return super().generate(
            None, generation_config, inputs_embeds=embeddings, attention_mask=rows.attention_mask, **kwargs
        )


__all__ = ["HumanOmniForConditionalGeneration", "HumanOmniModel", "HumanOmniPreTrainedModel"]
