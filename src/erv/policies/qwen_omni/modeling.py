"""Qwen2.5-Omni's thinker on features that were computed beforehand.

Towers, language model and head are transformers' own. Ours differs in three ways: the towers run separately
(`encode_clips`), `clip_index` says which clip each row shows, and positions follow from the prompt alone,
since all clips have the same geometry. The towers' own projections (the patch merger, the audio projection)
belong to the towers and are frozen with them.

The contract with TRL's trainers is the one in `erv.policies.humanomni.modeling`.
"""

from typing import Any

import torch
from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from erv.policies.common.modeling import ConditionedOnClips
from erv.policies.common.splice import require_features, rows_of_clips, splice
from erv.policies.qwen_omni.configuration import QwenOmniConfig
from erv.policies.qwen_omni.thinker import Thinker, WithHead

_CLIPS_AT_ONCE = 8  # bounds the memory of the towers; results don't depend on it beyond rounding


class QwenOmniModel(Thinker):
    """Towers and language model, without the head."""

    config: QwenOmniConfig

    @torch.no_grad()
    def encode_clips(
        self, pixel_values_videos: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Runs the frozen towers, without gradient.

        Args:
            pixel_values_videos: [clips, patches, channels * time * side * side] float, or None.
            input_features: log-mel [clips, mels, steps] float, or None.

        Returns:
            `video_features` [clips, tokens, hidden] and `audio_features` [clips, tokens, hidden] for the
            inputs that were given: tokens of the language model.
        """
        features: dict[str, torch.Tensor] = {}
        if pixel_values_videos is not None:
            pixels = pixel_values_videos.to(self.device, self.dtype)
            encoded = [self._see(chunk) for chunk in pixels.split(_CLIPS_AT_ONCE)]
            features["video_features"] = torch.cat(encoded)
        if input_features is not None:
            mels = input_features.to(self.device, self.dtype)
            features["audio_features"] = torch.cat(
                [self._hear(chunk) for chunk in mels.split(_CLIPS_AT_ONCE)]
            )
        return features

    def _see(self, pixels: torch.Tensor) -> torch.Tensor:
        grid = torch.tensor([self.config.grid] * pixels.shape[0], device=pixels.device)
        return torch.stack(self.get_video_features(pixels.flatten(0, 1), grid).pooler_output)

    def _hear(self, mels: torch.Tensor) -> torch.Tensor:
        whole = torch.ones(mels.shape[0], mels.shape[2], dtype=torch.long, device=mels.device)
        hidden = self.get_audio_features(mels, whole).last_hidden_state
        per_clip: torch.Tensor = hidden.unflatten(0, (mels.shape[0], -1))
        return per_clip

    def positions(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Positions in time, row and column, as transformers' `get_rope_index` gives them.

        Text and sound count up in all three axes. A video starts at the next number, and each pair of frames
        is `grid_step` after the pair before it. What follows the video continues after its largest position.

        Args:
            input_ids: long [rows, length].
            attention_mask: [rows, length]; 0 marks padding on either side.

        Returns:
            Long [3, rows, length].
        """
        config = self.config
        times, side, length = config.grid[0], config.merged_side, config.video_tokens
        span = max((times - 1) * config.grid_step, side - 1) + 1  # positions that a video takes up
        count = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        video = (input_ids == config.video_token_id) & (attention_mask != 0)
        seen = video.long().cumsum(dim=1)
        text = count - seen + (seen + length - 1) // length * span
        place = (seen - 1).clamp(min=0)
        before, place = place // length, place % length  # earlier videos; the token's place in its own video
        start = count - place - before * (length - span)
        offsets = torch.stack((place // side**2 * config.grid_step, place // side % side, place % side))
        return torch.where(video, start + offsets, text)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of the spliced sequence.

        Args:
            input_ids: long [rows, length], placeholders expanded.
            attention_mask: [rows, length], or [rows, cached + length] with a cache; 0 marks padding.
            position_ids: long [3, rows, length] from `positions`; None calls `positions`.
            past_key_values: the cache of a generation or of a prompt; a filled one needs `position_ids`.
            inputs_embeds: [rows, length, hidden] instead of `input_ids`; then nothing is spliced.
            use_cache: whether to return a cache.
            video_features: [clips, tokens, hidden] from `encode_clips`.
            audio_features: [clips, tokens, hidden] from `encode_clips`.
            clip_index: [rows] long, the clip that each row shows; None means row i shows clip i.
            **kwargs: passed on to the language model.

        Raises:
            ValueError: placeholders and features don't fit together, or a filled cache has no positions.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if input_ids is not None:
            started = past_key_values is not None and past_key_values.get_seq_length() > 0
            if position_ids is None:
                if started:
                    raise ValueError("give position_ids with a filled cache; take them from positions()")
                mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
                position_ids = self.positions(input_ids, mask)
            clip_index = rows_of_clips(input_ids, clip_index)
            inputs_embeds = self.get_input_embeddings()(input_ids)
            for tokens, token_id, modality in (
                (video_features, self.config.video_token_id, "video"),
                (audio_features, self.config.audio_token_id, "audio"),
            ):
                if tokens is not None:
                    inputs_embeds = splice(inputs_embeds, input_ids == token_id, tokens, clip_index, modality)
                elif not started:  # looking for placeholders in each token would wait for the GPU
                    require_features(input_ids == token_id, modality)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class QwenOmniForConditionalGeneration(ConditionedOnClips, WithHead):
    """The thinker with its language-model head."""

    clip_inputs = ("video_features", "audio_features")
    config: QwenOmniConfig

    def __init__(self, config: QwenOmniConfig) -> None:
        super().__init__(config)
        self.model = QwenOmniModel(config)
        self.post_init()
        self.freeze_towers()

    @property
    def placeholder_ids(self) -> list[int]:
        """Ids of the tokens that stand for images, frames and sound; generation never produces one."""
        return [self.config.image_token_id, self.config.video_token_id, self.config.audio_token_id]

    def encode_clips(
        self, pixel_values_videos: torch.Tensor | None = None, input_features: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """See `QwenOmniModel.encode_clips`."""
        features: dict[str, torch.Tensor] = self.model.encode_clips(pixel_values_videos, input_features)
        return features

    def positions(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """See `QwenOmniModel.positions`."""
        positions: torch.Tensor = self.model.positions(input_ids, attention_mask)
        return positions

    def freeze_towers(self) -> None:
        """Freezes both towers, including their projections."""
        self.model.visual.requires_grad_(False)
        self.model.audio_tower.requires_grad_(False)

    def freeze_projectors(self) -> None:
        """Does nothing: the projections are the towers' last layers and are frozen with them."""

    def freeze_question_encoder(self) -> None:
        """Does nothing: only the language model reads the question."""

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
        video_features: torch.Tensor | None = None,
        audio_features: torch.Tensor | None = None,
        clip_index: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [rows, length, vocabulary], and the shifted cross entropy when `labels` are given.

        `logits_to_keep` limits the computation to the last positions (an integer) or to the given ones (an
        index tensor); labels must then have the same length. The other arguments are those of
        `QwenOmniModel.forward`.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            video_features=video_features,
            audio_features=audio_features,
            clip_index=clip_index,
            **kwargs,
        )
        return self.with_head(outputs, labels, logits_to_keep, **kwargs)

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        # A hook of transformers, called once for the whole prompt; each new token then adds one.
        if inputs_tensor.is_floating_point():
            raise ValueError(
                "positions depend on the placeholders of the prompt: generate from input_ids, not from"
                " inputs_embeds"
            )
        mask = model_kwargs.get("attention_mask")
        return self.positions(inputs_tensor, torch.ones_like(inputs_tensor) if mask is None else mask)


__all__ = ["QwenOmniForConditionalGeneration", "QwenOmniModel"]
