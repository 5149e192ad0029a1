"""Pixel values, log-mel and splicing against the authors' published preprocessing.

Completing short frame lists with black frames (case `short5`) is in `test_preprocess_media.py`.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from erv.errors import DataError
from erv.media.decode import to_square
from erv.policies.humanomni import HumanOmniProcessor
from erv.policies.humanomni.processing import chat_template
from erv.sample.tiny_policy import train_wordpiece

DATA = Path(__file__).parent / "data" / "preprocess"
SIZE = 48
SECOND = np.zeros(16000, np.int16)


@pytest.fixture(scope="module")
def golden():
    return load_file(DATA / "preprocess.safetensors")


@pytest.fixture(scope="module")
def cases():
    return json.loads((DATA / "preprocess_golden.json").read_text())


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character, as in the golden splicing cases."""
    vocabulary = {chr(code): code for code in range(128)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="\x00", eos_token="\x01")
    tokenizer.add_tokens(["<video>", "<audio>", "<image>"], special_tokens=True)
    return tokenizer


@pytest.fixture(scope="module")
def processor():
    return HumanOmniProcessor(
        feature_extractor=WhisperFeatureExtractor(feature_size=128),
        tokenizer=letters(),
        gate_tokenizer=train_wordpiece(["which emotion"], 64, max_length=16),
        image_size=SIZE,
        num_frames=8,
    )


@pytest.mark.parametrize("name", ["landscape", "portrait", "square", "odd"])
@pytest.mark.parametrize(("geometry", "suffix"), [("stretch", "nopad"), ("pad", "pad")])
def test_pixel_values(processor, golden, name, geometry, suffix):
    frames = to_square(golden[f"{name}.frames_uint8"].numpy(), SIZE, geometry)
    pixels = processor.prepare_clip(frames, SECOND, 16000)["pixel_values"]
    torch.testing.assert_close(pixels, golden[f"{name}.pixel_values_{suffix}"], atol=1e-6, rtol=0)


def test_log_mel(processor, golden, cases):
    # Theirs came as floats; ours are the 16-bit samples that a shard holds, hence the tolerance.
    waveform = golden["audio.waveform"].numpy()
    audio = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    features = processor.prepare_clip(np.zeros((8, SIZE, SIZE, 3), np.uint8), audio, 16000)["input_features"]
    assert list(features.shape) == cases["audio"]["input_features_shape"][1:]
    exact = processor.feature_extractor(waveform, sampling_rate=16000, return_tensors="pt")["input_features"]
    torch.testing.assert_close(exact[..., :80], golden["audio.input_features_first80"], atol=1e-5, rtol=0)
    torch.testing.assert_close(exact[..., -2:], golden["audio.input_features_last2"], atol=1e-5, rtol=0)
    loud = exact[0] > 0  # quantisation shows in the quietest bands alone
    torch.testing.assert_close(features[loud], exact[0][loud], atol=2e-2, rtol=0)


def test_splicing(cases):
    """Each placeholder is one token, and the pieces between are tokenised on their own."""
    tokenizer = letters()
    ours = {-200: "<image>", -201: "<video>", -202: "<audio>"}
    spliced = [case for case in cases["splice"] if case["modal_argument"] not in (None, "<text>")]
    assert len(spliced) >= 10
    for case in spliced:
        expected = [
            tokenizer.convert_tokens_to_ids(ours[token]) if token < 0 else token for token in case["ids"]
        ]
        assert tokenizer(case["prompt"], add_special_tokens=False)["input_ids"] == expected, case["prompt"]


def test_the_template_wraps_and_repeats_as_the_released_prompts():
    tokenizer = letters()
    tokenizer.chat_template = chat_template(3, 2, wrap=True)
    messages = [{"role": "user", "content": "<video>\n<audio>\nQ"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\n<vi_start><video><video><video><vi_end>\n<au_start><audio><audio><au_end>\nQ<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_clip_of_another_shape_is_refused_with_the_remedy(processor):
    with pytest.raises(
        DataError, match=r"takes uint8 \[8, 48, 48, 3\]; set extract.frames: 8 and extract.size: 48"
    ):
        processor.prepare_clip(np.zeros((8, 64, 64, 3), np.uint8), SECOND, 16000)
    with pytest.raises(DataError, match="sampled at 8000 Hz"):
        processor.prepare_clip(np.zeros((8, SIZE, SIZE, 3), np.uint8), SECOND, 8000)
