"""What the models of all families share: the head, and generation that encodes each clip once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

if TYPE_CHECKING:
    from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, ProcessorMixin

    class _Model(PreTrainedModel, GenerationMixin):
        config: Any
        model: Any
        lm_head: nn.Linear
else:
    _Model = object


class ConditionedOnClips(_Model):
    """Head and generation of a model whose rows show clips; mix it in before the transformers class.

    The model class must have `lm_head` and `model`, the inner model with its `language_model`.

    Attributes:
        clip_inputs: arguments of `forward` that have one row per clip, not one per row of the batch.
    """

    clip_inputs: ClassVar[tuple[str, ...]]

    def get_decoder(self) -> nn.Module:
        """The language model."""
        decoder: nn.Module = self.model.language_model
        return decoder

    def with_head(
        self,
        outputs: BaseModelOutputWithPast,
        labels: torch.Tensor | None,
        logits_to_keep: int | torch.Tensor,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits from the inner model's hidden states, and the shifted cross entropy if labels are given.

        Args:
            outputs: output of the inner model, with hidden states [rows, length, hidden].
            labels: long [rows, kept], or None.
            logits_to_keep: positions to compute: how many at the end (an integer, 0 for all), or which ones
                (an index tensor).
            **kwargs: passed on to the loss.
        """
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        hidden = outputs.last_hidden_state
        assert hidden is not None
        logits = self.lm_head(hidden[:, kept])
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

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Repeats rows for beams and multiple samples. Clips are not repeated: rows point to them."""
        clips = {name: model_kwargs.pop(name) for name in self.clip_inputs if name in model_kwargs}
        if expand_size > 1 and clips and input_ids is not None and model_kwargs.get("clip_index") is None:
            model_kwargs["clip_index"] = torch.arange(input_ids.shape[0], device=input_ids.device)
        ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return ids, model_kwargs | clips

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
        """The stock preparation, without the clip inputs once the cache holds the prompt."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in (*self.clip_inputs, "clip_index"):
                inputs.pop(name, None)
        return inputs


def register(
    config: type[PreTrainedConfig], model: type[PreTrainedModel], processor: type[ProcessorMixin]
) -> None:
    """Makes the Auto classes load a family; TRL loads the reference of the KL term through them."""
    AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModelForCausalLM.register(config, model, exist_ok=True)
    AutoModelForImageTextToText.register(config, model, exist_ok=True)
    AutoProcessor.register(config, processor, exist_ok=True)


__all__ = ["ConditionedOnClips", "register"]
