"""Loads Qwen2.5-Omni as released, or its thinker alone, as a policy.

The talker and the vocoder, which speak, are neither built nor read. The form of a clip is decided here, once
(`Geometry`), and is then part of the policy's folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, WhisperFeatureExtractor

from erv.errors import TrainingError
from erv.model_folders import load_model, load_part
from erv.policies.common.families import read_config
from erv.policies.common.loading import check_loaded
from erv.policies.qwen_omni.configuration import QwenOmniConfig
from erv.policies.qwen_omni.modeling import QwenOmniForConditionalGeneration
from erv.policies.qwen_omni.processing import (
    AUDIO_TOKEN,
    IMAGE_TOKEN,
    VIDEO_START,
    VIDEO_TOKEN,
    QwenOmniProcessor,
    chat_template,
)

# Names as transformers maps them for its own class: in the released files the thinker is part of a larger
# model, and its language model has no level of its own.
_NAMES = {
    r"^thinker\.": "",
    r"^audio_tower": "model.audio_tower",
    r"^visual": "model.visual",
    r"^model(?!\.(language_model|visual|audio_tower))": "model.language_model",
}


@dataclass(frozen=True)
class Geometry:
    """The form in which the policy sees and hears a clip.

    Attributes:
        num_frames: frames per clip, an even number. `extract.frames` must be the same.
        image_size: side of a frame in pixels, a multiple of 28. `extract.size` must be the same. 336 gives
            144 tokens per pair of frames, close to the minimum (128) that the released processor scales
            frames to; 224 gives 64 tokens and is less than half the work.
        window_seconds: seconds of sound that are heard, from the start of the clip; 25 tokens per second.
        seconds_per_grid: see `QwenOmniConfig`.
    """

    num_frames: int = 8
    image_size: int = 336
    window_seconds: int = 10
    seconds_per_grid: float = 1.0


def load_released(
    folder: str | Path, dtype: torch.dtype = torch.float32, geometry: Geometry | None = None
) -> tuple[QwenOmniForConditionalGeneration, QwenOmniProcessor]:
    """Model and processor of a released folder, or of a folder with transformers' thinker alone.

    Args:
        folder: folder with `config.json`, weights as safetensors, tokenizer and `preprocessor_config.json`.
        dtype: type of the loaded weights.
        geometry: the form of clips; None for the default.

    Raises:
        TrainingError: a file or a weight is missing, or the model does not support the geometry.
    """
    folder, geometry = Path(folder), geometry or Geometry()
    settings = _preprocessor(folder)
    names = ("feature_size", "sampling_rate", "hop_length", "n_fft", "padding_value", "dither")
    extractor = WhisperFeatureExtractor(
        chunk_length=geometry.window_seconds, **{name: settings[name] for name in names if name in settings}
    )
    config = _config(folder, geometry, extractor.nb_max_frames)
    tokenizer = load_part(AutoTokenizer, folder, padding_side="left")
    _check_tokens(folder, tokenizer, config)
    model = load_whole(folder, dtype, config=config, key_mapping=_NAMES)
    # Otherwise it would be saved under the released names, but a resumed checkpoint is read under ours.
    model._weight_conversions = []
    colours = {name: settings[name] for name in ("image_mean", "image_std") if name in settings}
    return with_processor(model, tokenizer, extractor, **colours)


def with_processor(
    model: QwenOmniForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    extractor: WhisperFeatureExtractor,
    **colours: Any,
) -> tuple[QwenOmniForConditionalGeneration, QwenOmniProcessor]:
    """The model, and a processor that fits its configuration; also sets template and generation settings.

    Args:
        model: the policy's model; its generation configuration is replaced.
        tokenizer: the model's tokenizer; its chat template is replaced.
        extractor: computes the log-mel of the model's sound window.
        **colours: `image_mean` and `image_std`, if they are not the defaults.
    """
    config = model.config
    tokenizer.chat_template = chat_template(config.video_tokens, config.audio_tokens)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=model.placeholder_ids,
    )
    return model, QwenOmniProcessor(
        feature_extractor=extractor,
        tokenizer=tokenizer,
        image_size=config.image_size,
        num_frames=config.num_frames,
        patch_size=config.vision_config.patch_size,
        temporal_patch_size=config.vision_config.temporal_patch_size,
        merge_size=config.vision_config.spatial_merge_size,
        **colours,
    )


def load_whole(folder: Path, dtype: torch.dtype, **options: Any) -> QwenOmniForConditionalGeneration:
    """`from_pretrained` that refuses to fill missing weights with random numbers.

    Raises:
        TrainingError: a weight is missing or has another shape.
    """
    model: QwenOmniForConditionalGeneration
    model, info = load_model(
        QwenOmniForConditionalGeneration,
        folder,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **options,
    )
    check_loaded(folder, info, unexpected=False)  # a released folder also holds the parts that speak
    return model


def _config(folder: Path, geometry: Geometry, mel_steps: int) -> QwenOmniConfig:
    """The thinker's part of a configuration, with a geometry."""
    released = read_config(folder)
    thinker = dict(released.get("thinker_config", released))
    for key in ("architectures", "model_type", "torch_dtype", "dtype", "transformers_version"):
        thinker.pop(key, None)
    return QwenOmniConfig(
        **thinker
        | {
            "num_frames": geometry.num_frames,
            "image_size": geometry.image_size,
            "mel_steps": mel_steps,
            "seconds_per_grid": geometry.seconds_per_grid,
        }
    )


def _preprocessor(folder: Path) -> dict[str, Any]:
    """How sound becomes a log-mel and pixels become numbers."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise TrainingError(f"{path}: not found; it says how to compute the log-mel of sound: fetch it too")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: not valid JSON ({error}); fetch the file again") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: expected a JSON object; fetch the file again")
    return content


def _check_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase, config: QwenOmniConfig) -> None:
    """Makes sure that tokenizer and configuration agree on the placeholders."""
    expected = {
        VIDEO_TOKEN: config.video_token_id,
        AUDIO_TOKEN: config.audio_token_id,
        IMAGE_TOKEN: config.image_token_id,
        VIDEO_START: config.vision_start_token_id,
    }
    for token, number in expected.items():
        found = tokenizer.convert_tokens_to_ids(token)
        if found != number:
            raise TrainingError(
                f"{folder}: the tokenizer gives {token} the id {found}, config.json says {number};"
                " the files are not from the same checkpoint: fetch the folder again"
            )


__all__ = ["Geometry", "load_released", "load_whole", "with_processor"]
