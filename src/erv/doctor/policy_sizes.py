"""How large a policy is: the class that trains is built on torch's meta device, and its weights are counted.

Nothing is downloaded and no weight takes memory. Importing torch and transformers takes about four seconds,
the count itself less than one, even for 7B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erv.errors import DataError

_COUNTED = ("humanomni", "qwen_omni")


@dataclass(frozen=True)
class PolicySizes:
    """Sizes of a policy; plain numbers, so that they can be kept in a file.

    Attributes:
        name: name of the policy in messages.
        parameters: all weights; a tied head counts once.
        trainable: weights outside the towers.
        question_encoder: trainable weights that read the question beside the language model.
        language: trainable weights of the language model and its head.
        block: weights of one block of the language model.
        matrices: weights of the linear layers of all its blocks: what `quantize: nf4` keeps in four bits.
        adapter: weights of adapters of rank one.
        width: width of the language model.
        layers: number of its blocks.
        mlp: inner width of its blocks.
        key_value_width: width of its keys, and of its values, over all heads.
        vocabulary: rows of its embedding table.
        positions: its longest sequence.
        frames: frames per clip.
        image_size: side of a frame in pixels.
        video_tokens: tokens of all frames of a clip.
        audio_tokens: tokens of a clip's sound, however short it is.
        projected: patches of a clip times residual blocks that project them; 0 if no projector can train.
        feature_bytes: size of the features that the towers make of a clip, float32.
    """

    name: str
    parameters: int
    trainable: int
    question_encoder: int
    language: int
    block: int
    matrices: int
    adapter: int
    width: int
    layers: int
    mlp: int
    key_value_width: int
    vocabulary: int
    positions: int
    frames: int
    image_size: int
    video_tokens: int
    audio_tokens: int
    projected: int
    feature_bytes: int


def sizes_of(config: Mapping[str, Any], name: str) -> PolicySizes | None:
    """Sizes from a policy's `config.json`: one that we wrote, or a released HumanOmni's.

    Returns:
        The sizes, or None for a model that is not one of our classes.

    Raises:
        DataError: no model can be built from the configuration.
    """
    try:
        if config.get("model_type") == "HumanOmni_qwen2":
            config = our_config(config)
        return _count(config, name) if config.get("model_type") in _COUNTED else None
    except Exception as error:  # whatever the classes raise for an invalid configuration
        raise DataError(
            f"{name}: not a policy's configuration ({error!r}); pin the checkpoint again"
        ) from error


def _count(mapping: Mapping[str, Any], name: str) -> PolicySizes:
    import torch
    from peft import inject_adapter_in_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from erv.policies.common.families import family_module, family_of
    from erv.settings import LoraSettings
    from erv.training.common.adapters import lora_config

    family_module(family_of(mapping, name))  # registers its classes
    config = AutoConfig.for_model(**mapping)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)

    def trainable() -> int:
        return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)

    model.requires_grad_(True)
    parameters = trainable()
    model.freeze_towers()
    outside_towers = trainable()
    model.freeze_question_encoder()
    question_encoder = outside_towers - trainable()
    model.freeze_projectors()
    language = trainable()
    decoder = model.get_decoder()
    linear = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    matrices = sum(module.weight.numel() for module in linear)
    block = sum(weight.numel() for weight in decoder.layers[0].parameters())
    one = LoraSettings(enabled=True, rank=1, alpha=1, dropout=0.0, quantize="none")
    inject_adapter_in_model(lora_config(model, one), model)  # freezes all but the adapters
    adapter = trainable()
    text = decoder.config
    return PolicySizes(
        name=name,
        parameters=parameters,
        trainable=outside_towers,
        question_encoder=question_encoder,
        language=language,
        block=block,
        matrices=matrices,
        adapter=adapter,
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        mlp=text.intermediate_size,
        key_value_width=decoder.layers[0].self_attn.k_proj.out_features,
        vocabulary=text.vocab_size,
        positions=text.max_position_embeddings,
        frames=config.num_frames,
        audio_tokens=config.audio_tokens,
        **_clip(config),
    )


def _clip(config: Any) -> dict[str, int]:
    """The sizes of a clip for a family of policies, from its configuration."""
    vision, audio = config.vision_config, config.audio_config
    if config.model_type == "qwen_omni":  # its towers include their projection
        tokens = config.video_tokens + config.audio_tokens
        return {
            "image_size": config.image_size,
            "video_tokens": config.video_tokens,
            "projected": 0,
            "feature_bytes": 4 * tokens * config.text_config.hidden_size,
        }
    from erv.policies.humanomni.projector import DEPTHS

    patches = config.num_frames * config.patches_per_side**2
    features = patches * vision.hidden_size + audio.max_source_positions * audio.d_model
    return {
        "image_size": vision.image_size,
        "video_tokens": config.num_frames * config.tokens_per_frame,
        "projected": patches * DEPTHS[config.projector_type],
        "feature_bytes": 4 * features,
    }


def nominal(name: str) -> PolicySizes:
    """Sizes of a released model, known without its files; `name` is a key of `RELEASED`."""
    return _count(our_config(RELEASED[name]), name)


def our_config(released: Mapping[str, Any]) -> dict[str, Any]:
    """Our configuration for a released one, which names its towers but does not give their sizes.

    The width of its features identifies SigLIP; Whisper and BERT are the same in all released models.
    """
    from erv.policies.humanomni.released_config import convert_config

    return convert_config(dict(released), _SIGLIP[released["mm_hidden_size"]], _WHISPER_LARGE_V3, _BERT_BASE)


# From config.json of the public models that `erv.policies.humanomni.released_config` names; the rest are
# defaults of transformers' classes, which are those of siglip-base-patch16-224 and bert-base-uncased.
_SIGLIP: dict[int, dict[str, Any]] = {
    768: {},  # base-patch16-224
    1152: {  # so400m-patch14-384
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "intermediate_size": 4304,
        "patch_size": 14,
        "image_size": 384,
    },
}
_WHISPER_LARGE_V3 = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
}
_BERT_BASE: dict[str, Any] = {}
# What config.json of the released checkpoints says about their language model and their projector.
RELEASED: dict[str, dict[str, Any]] = {
    "HumanOmni-0.5B": {
        "model_type": "HumanOmni_qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "mm_hidden_size": 768,
        "mm_projector_type": "all_in_one_small",
        "num_frames": 8,
    },
    "HumanOmni-7B": {
        "model_type": "HumanOmni_qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "mm_hidden_size": 1152,
        "mm_projector_type": "all_in_one",
        "num_frames": 8,
    },
}
