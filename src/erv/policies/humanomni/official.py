"""Loading the released HumanOmni, R1-Omni and ERV checkpoints into our classes.

Three differences are bridged here, once: the names of the weights; convolutions that are matrix products in
our layout; and placeholders, which are negative ids there and tokens of the vocabulary here.

Deviations from the released loader:
1. Tower weights are taken from the checkpoint itself. The released loader ignores them and reads the public
   towers instead, which were frozen and are equal.
2. The last SigLIP block, its closing norm and its head, the Whisper classifier and the BERT pooler are never
   built: nothing reads them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertTokenizer, GenerationConfig, WhisperFeatureExtractor

from erv.errors import TrainingError
from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration
from erv.policies.humanomni.processing import HumanOmniProcessor, chat_template
from erv.prompts import AUDIO_PLACEHOLDER, VIDEO_PLACEHOLDER

_LANGUAGE_KEYS = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    max_position_embeddings rms_norm_eps hidden_act attention_dropout use_sliding_window max_window_layers
    tie_word_embeddings bos_token_id eos_token_id pad_token_id initializer_range
"""

# Order matters: the first pattern that matches renames. A replacement of None drops the weight.
_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    (r"^model\.vision_tower\.vision_tower\.vision_model\.(post_layernorm|head)\..*", None),
    (r"^model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^model\.audio_tower\.audio_tower\.(projector|classifier|layer_weights).*", None),
    (r"^model\.audio_tower\.audio_tower\.encoder\.", "model.audio_tower."),
    (r"^model\.bert_model\.pooler\..*", None),
    (r"^model\.bert_model\.", "model.gate_encoder."),
    (r"^model\.bert_gate\.0\.", "model.gate.enter."),
    (r"^model\.bert_gate\.2\.", "model.gate.readout."),
    (r"^model\.audio_projector\.0\.", "model.audio_projector.enter."),
    (r"^model\.audio_projector\.2\.", "model.audio_projector.readout."),
    (r"^model\.mm_projector\.mlp_2xgelu_face\.0\.", "model.visual_projector.face.enter."),
    (r"^model\.mm_projector\.mlp_2xgelu_face\.2\.", "model.visual_projector.face.readout."),
    (r"^model\.mm_projector\.sampler_(video|body)\.0\.", r"model.visual_projector.\1.sampler."),
    (r"^model\.mm_projector\.readout_(video|body)\.", r"model.visual_projector.\1.readout."),
)
_BLOCK = re.compile(r"^model\.mm_projector\.s([12])_(video|body)\.b(\d+)\.(.+)\.(weight|bias)$")
_BLOCK_PARTS = {
    "conv1.conv": "mix_in",
    "conv1.bn": "norm_in",
    "conv2.conv": "spatial",
    "conv2.bn": "norm_spatial",
    "se.fc1": "excite.reduce",
    "se.fc2": "excite.expand",
    "conv3.conv": "mix_out",
    "conv3.bn": "norm_out",
    "downsample.conv": "shortcut.0",
    "downsample.bn": "shortcut.1",
}


def convert_name(name: str) -> str | None:
    """Our name of a released weight, or None when nothing reads it.

    Raises:
        TrainingError: the name belongs to no part of the network.
    """
    if name.endswith("position_ids"):
        return None
    if block := _BLOCK.match(name):
        stage, branch, number, part, kind = block.groups()
        side = "before" if stage == "1" else "after"
        return f"model.visual_projector.{branch}.{side}.{int(number) - 1}.{_BLOCK_PARTS[part]}.{kind}"
    for pattern, replacement in _NAMES:
        if re.match(pattern, name):
            return None if replacement is None else re.sub(pattern, replacement, name, count=1)
    if name == "lm_head.weight":
        return name
    raise TrainingError(f"{name}: not a weight of a HumanOmni checkpoint; is this another model?")


def convert_weights(weights: dict[str, torch.Tensor], vision_blocks: int) -> dict[str, torch.Tensor]:
    """Renames released weights and lays convolutions out as the matrices that we multiply with.

    Args:
        weights: the released state dict.
        vision_blocks: SigLIP blocks that are built; later ones are dropped.
    """
    converted = {}
    for name, weight in weights.items():
        ours = convert_name(name)
        if ours is None:
            continue
        block = re.match(r"model\.vision_tower\.encoder\.layers\.(\d+)\.", ours)
        if block and int(block.group(1)) >= vision_blocks:
            continue
        if ours.endswith("sampler.weight"):  # [out, in, time, row, column] -> [out, (time, row, column, in)]
            weight = weight.permute(0, 2, 3, 4, 1).flatten(1)
        elif weight.ndim == 4 and weight.shape[-1] == 1:  # a 1x1 convolution
            weight = weight.flatten(1)
        converted[ours] = weight.contiguous()
    return converted


def convert_config(
    released: dict[str, Any], vision: dict[str, Any], audio: dict[str, Any], gate: dict[str, Any]
) -> HumanOmniConfig:
    """Our configuration of a released one.

    Args:
        released: `config.json` of the checkpoint (`model_type` "HumanOmni_qwen2").
        vision: `config.json` of its SigLIP tower (or the `vision_config` inside).
        audio: `config.json` of its Whisper tower.
        gate: `config.json` of bert-base-uncased.
    """
    text = {key: released[key] for key in _LANGUAGE_KEYS.split() if key in released}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": released.get("rope_theta", 1e6)}
    vision = vision.get("vision_config", vision)
    blocks = vision.get("num_hidden_layers", 12) + 1 + released.get("mm_vision_select_layer", -2)
    vision_config = {**vision, "model_type": "siglip_vision_model", "num_hidden_layers": blocks}
    audio_config = {**audio, "model_type": "whisper"}
    for config in (vision_config, audio_config):
        for key in ("architectures", "torch_dtype", "transformers_version"):
            config.pop(key, None)
    gate_config = {k: v for k, v in gate.items() if k not in ("architectures", "torch_dtype")}
    return HumanOmniConfig(
        text_config={"model_type": "qwen2", **text},
        vision_config=vision_config,
        audio_config=audio_config,
        gate_config={**gate_config, "model_type": "bert"},
        projector_type=released["mm_projector_type"],
        gate_hidden_size=3584,
        num_frames=released.get("num_frames", 8),
    )


def load_official(
    folder: str | Path,
    *,
    vision: str | Path | None = None,
    audio: str | Path | None = None,
    gate: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
) -> HumanOmniForConditionalGeneration:
    """Loads the weights of a released checkpoint; the placeholders get the first two free ids.

    Args:
        folder: the checkpoint (`config.json`, `*.safetensors`).
        vision: folder or file of the SigLIP configuration; default `siglip_config.json` beside the weights.
        audio: the same for Whisper; default `whisper_config.json`.
        gate: the same for BERT; default `bert_config.json`.
        dtype: of the loaded weights.

    Returns:
        The model, on the CPU, in evaluation mode. Its placeholder ids are two new rows at the end of the
        vocabulary; `official_processor` moves them to the rows that its tokenizer gives them.

    Raises:
        TrainingError: a file is missing, or weights and configuration don't fit together.
    """
    folder = Path(folder)
    config = convert_config(
        _read_config(folder, "config.json"),
        _read_config(vision or folder / "siglip_config.json", "config.json"),
        _read_config(audio or folder / "whisper_config.json", "config.json"),
        _read_config(gate or folder / "bert_config.json", "config.json"),
    )
    shards = sorted(folder.glob("*.safetensors"))
    shards = [shard for shard in shards if shard.name.startswith(("model", "pytorch_model"))]
    if not shards:
        raise TrainingError(
            f"{folder}: no model*.safetensors here; convert the checkpoint to safetensors first"
        )
    released: dict[str, torch.Tensor] = {}
    for shard in shards:
        released.update(load_file(shard))
    weights = convert_weights(released, config.vision_config.num_hidden_layers)
    # The embedding table decides: fine-tuning scripts resize it without touching every configuration.
    config.text_config.vocab_size = weights["model.language_model.embed_tokens.weight"].shape[0]
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.language_model.embed_tokens.weight"]
    model = HumanOmniForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing or unexpected:
        faults = ", ".join(
            [*(f"missing {n}" for n in missing[:3]), *(f"unexpected {n}" for n in unexpected[:3])]
        )
        raise TrainingError(f"{folder}: weights and configuration don't fit together ({faults})")
    vocabulary = config.text_config.vocab_size
    model.resize_token_embeddings(vocabulary + 2, mean_resizing=False)
    _set_placeholders(model, vocabulary, vocabulary + 1)
    return model.to(dtype).eval()


def official_processor(
    model: HumanOmniForConditionalGeneration,
    tokenizer: str | Path,
    feature_extractor: str | Path,
    gate_tokenizer: str | Path,
) -> HumanOmniProcessor:
    """Builds the processor of a released checkpoint and points the model at its placeholder tokens.

    Placeholders are added behind the tokenizer's own tokens, where the released embedding tables have spare
    rows. The think and answer tags stay ordinary text, as these checkpoints learned them.
    """
    text = AutoTokenizer.from_pretrained(tokenizer, padding_side="left")
    text.add_tokens([VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER], special_tokens=True)
    config = model.config
    video, audio = text.convert_tokens_to_ids([VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER])
    released_rows = config.text_config.vocab_size - 2
    model.resize_token_embeddings(max(len(text), released_rows), mean_resizing=False)
    _set_placeholders(model, video, audio)
    text.chat_template = chat_template(
        config.num_frames * config.tokens_per_frame, config.audio_tokens, wrap=True
    )
    return HumanOmniProcessor(
        feature_extractor=WhisperFeatureExtractor.from_pretrained(feature_extractor),
        tokenizer=text,
        gate_tokenizer=BertTokenizer.from_pretrained(gate_tokenizer),
        image_size=config.vision_config.image_size,
        num_frames=config.num_frames,
    )


def _set_placeholders(model: HumanOmniForConditionalGeneration, video: int, audio: int) -> None:
    """Names the placeholder ids and keeps generation from ever writing one."""
    model.config.video_token_id, model.config.audio_token_id = video, audio
    text = model.config.text_config
    model.generation_config = GenerationConfig(
        eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id, suppress_tokens=[video, audio]
    )


def _read_config(path: str | Path, name: str) -> dict[str, Any]:
    """Reads a JSON configuration from a file or from the folder that holds it."""
    path = Path(path)
    file = path / name if path.is_dir() else path
    if not file.is_file():
        raise TrainingError(
            f"{file}: not found; a released checkpoint needs the configurations of its towers"
        )
    return json.loads(file.read_text(encoding="utf-8"))


__all__ = ["convert_config", "convert_name", "convert_weights", "load_official", "official_processor"]
