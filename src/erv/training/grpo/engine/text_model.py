"""The language model of a policy as a model of its own: a folder without weights, and the weights by name.

The names are those of the class of transformers that the configuration belongs to (`Qwen2ForCausalLM`), which
vLLM reads too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING


def text_class(policy: Any) -> Any:
    """The class of transformers for the language model of a policy model."""
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(policy.config.text_config)]


def write_text_folder(policy: Any, tokenizer: Any, folder: Path) -> None:
    """Writes configuration and tokenizer of the language model; the weights follow with each generation.

    Args:
        policy: the policy model, without wrappers.
        tokenizer: the policy's tokenizer.
        folder: an existing folder.
    """
    config = copy.deepcopy(policy.config.text_config)
    config.architectures = [text_class(policy).__name__]
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def text_weights(policy: Any, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights of the language model and its head; adapters are added to copies, so the policy stays as it is.

    Args:
        policy: the policy model, without wrappers around it; adapters may be inside.
        dtype: what each weight is rounded to, after merging.

    Yields:
        Name and weight. A head that is tied to the embeddings is left out.
    """
    decoder = policy.get_decoder()
    for name, module in decoder.named_modules():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer")
        for part, value in module.named_parameters(recurse=False):
            if layer != name and part == "weight":
                value = _merged(decoder.get_submodule(layer))
            yield f"model.{layer}.{part}", value.detach().to(dtype)
    if not policy.config.text_config.tie_word_embeddings:
        yield "lm_head.weight", policy.get_output_embeddings().weight.detach().to(dtype)


def _merged(layer: LoraLayer) -> torch.Tensor:
    """The weight of a linear layer with its adapters added, float32."""
    weight: torch.Tensor = layer.get_base_layer().weight.float()
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter).float()
    return weight
