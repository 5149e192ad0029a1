"""Converts a released HumanOmni, R1-Omni or ERV checkpoint to one of our policy folders.

`HumanOmniForConditionalGeneration.from_pretrained` reads a released folder without conversion, with its
negative placeholder ids. A policy also needs a processor, whose placeholders are tokens:

    model = HumanOmniForConditionalGeneration.from_pretrained("R1-Omni-0.5B", dtype="bfloat16")
    processor = official_processor(
        model,
        tokenizer="R1-Omni-0.5B",
        feature_extractor="openai/whisper-large-v3",
        gate_tokenizer="google-bert/bert-base-uncased",
    )
    Policy(model, processor).save("models/policy/r1-omni")

The resulting folder is complete, towers included: `load_policy` and the Auto classes read it. If the towers
are not where the checkpoint says, use `from_pretrained(..., mm_vision_tower=FOLDER, mm_audio_tower=FOLDER)`.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, BertTokenizer, WhisperFeatureExtractor

from erv.model_folders import load_part
from erv.policies.humanomni.modeling import HumanOmniForConditionalGeneration
from erv.policies.humanomni.processing import HumanOmniProcessor, chat_template
from erv.prompts import AUDIO_PLACEHOLDER, VIDEO_PLACEHOLDER


def official_processor(
    model: HumanOmniForConditionalGeneration,
    tokenizer: str | Path,
    feature_extractor: str | Path,
    gate_tokenizer: str | Path,
) -> HumanOmniProcessor:
    """Builds the processor of a released checkpoint and points the model at its placeholder tokens.

    Placeholders are added after the tokenizer's own tokens, where the released embedding tables have spare
    rows. The think and answer tags stay ordinary text, since these checkpoints learned them that way.
    """
    text = load_part(AutoTokenizer, tokenizer, local=False, padding_side="left")
    own_template = text.chat_template if isinstance(text.chat_template, str) else None
    text.add_tokens([VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER], special_tokens=True)
    config = model.config
    video, audio = text.convert_tokens_to_ids([VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER])
    rows = config.text_config.vocab_size
    if len(text) > rows:
        model.resize_token_embeddings(len(text), mean_resizing=False)
    _set_placeholders(model, video, audio)
    text.chat_template = chat_template(
        config.num_frames * config.tokens_per_frame, config.audio_tokens, wrap=True
    )
    return HumanOmniProcessor(
        feature_extractor=load_part(WhisperFeatureExtractor, feature_extractor, local=False),
        tokenizer=text,
        gate_tokenizer=load_part(BertTokenizer, gate_tokenizer, local=False),
        image_size=config.vision_config.image_size,
        num_frames=config.num_frames,
        official_template=own_template,
    )


def _set_placeholders(model: HumanOmniForConditionalGeneration, video: int, audio: int) -> None:
    """Sets the placeholder ids and stops generation from ever producing one."""
    model.config.video_token_id, model.config.audio_token_id = video, audio
    model.generation_config.suppress_tokens = [video, audio]


__all__ = ["official_processor"]
