"""A HumanOmni small enough for two CPU cores, with the classes and data flow of the released ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from erv.policies.humanomni import HumanOmniConfig, HumanOmniForConditionalGeneration, HumanOmniProcessor
from erv.policies.humanomni.processing import chat_template
from erv.prompts import AUDIO_PLACEHOLDER, INSTRUCTION, TAGS, VIDEO_PLACEHOLDER

_PAD, _END, _START = "<|endoftext|>", "<|im_end|>", "<|im_start|>"


@dataclass(frozen=True)
class TinySizes:
    """Sizes of the tiny policy; the defaults are what the demo trains.

    Attributes:
        image_size: frame side in pixels.
        patch_size: patch side in pixels; the grid must be even.
        num_frames: frames per clip.
        vision_width: width of the vision tower.
        vision_layers: its blocks.
        mels: mel bands.
        window_seconds: sound that is heard, from the start of the clip.
        hop: samples between log-mel steps (Whisper: 160); 320 halves the number of audio tokens.
        audio_width: width of the audio tower.
        audio_layers: its blocks.
        hidden: width of the language model.
        layers: its blocks.
        heads: its attention heads.
        mlp: inner width of its MLP.
        gate_width: width of the gate encoder and inner width of the gate.
        vocabulary: upper bound for the tokenizer; words of the training texts are mostly one token.
    """

    image_size: int = 64
    patch_size: int = 16
    num_frames: int = 8
    vision_width: int = 96
    vision_layers: int = 3
    mels: int = 32
    window_seconds: int = 3
    hop: int = 320
    audio_width: int = 64
    audio_layers: int = 2
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    mlp: int = 256
    gate_width: int = 32
    vocabulary: int = 1500


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerBase:
    """Trains a byte-level BPE tokenizer like Qwen2's, with placeholders and tags as separate tokens.

    The tags are ordinary (not special) added tokens: completions are decoded without special tokens, and the
    rewards must still see them.
    """
    stock = Qwen2Tokenizer()
    core = Tokenizer(models.BPE())
    core.normalizer = stock.backend_tokenizer.normalizer
    core.pre_tokenizer = stock.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The template's own words (roles, instruction) must not be split into letters.
    core.train_from_iterator([*texts, *[f"user\nassistant\n{INSTRUCTION}\n"] * 20], trainer=trainer)
    state = core.get_vocab(with_added_tokens=True)
    merges = _merges(core)
    tokenizer = Qwen2Tokenizer(
        vocab=dict(sorted(state.items(), key=lambda item: item[1])),
        merges=merges,
        eos_token=_END,
        pad_token=_PAD,
        unk_token=_PAD,
        additional_special_tokens=[_START],
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken(t, special=True) for t in (VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER)])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in TAGS])
    return tokenizer


def _merges(core: Tokenizer) -> list[tuple[str, str]]:
    """The merges of a trained BPE model, in order."""
    import json

    return [tuple(pair) for pair in json.loads(core.to_str())["model"]["merges"]]


def train_wordpiece(texts: Sequence[str], vocabulary: int, max_length: int) -> PreTrainedTokenizerBase:
    """Trains a lower-casing WordPiece tokenizer like BERT's.

    Args:
        texts: what it must be able to read.
        vocabulary: upper bound of its size.
        max_length: longest input in tokens; longer ones are truncated.
    """
    # Not the library's trainer: it numbers the pieces in the order of a randomly seeded hash, so every
    # process would get a different vocabulary. Whole words by frequency, and letters for the rest, are
    # enough.
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    pieces += words[: max(0, vocabulary - len(pieces))]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocab, do_lower_case=True, model_max_length=max_length)


def tiny_config(
    tokenizer: PreTrainedTokenizerBase, gate_vocabulary: int, sizes: TinySizes
) -> HumanOmniConfig:
    """The configuration of the tiny policy for a tokenizer."""
    mel_steps = sizes.window_seconds * 16000 // sizes.hop
    return HumanOmniConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.mlp,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": max(1, sizes.heads // 2),
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": sizes.image_size,
            "patch_size": sizes.patch_size,
            "hidden_size": sizes.vision_width,
            "intermediate_size": 2 * sizes.vision_width,
            "num_hidden_layers": sizes.vision_layers,
            "num_attention_heads": 4,
        },
        audio_config={
            "model_type": "whisper",
            "num_mel_bins": sizes.mels,
            "d_model": sizes.audio_width,
            "encoder_layers": sizes.audio_layers,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 2 * sizes.audio_width,
            "max_source_positions": mel_steps // 2,
            "decoder_layers": 1,
            "vocab_size": 8,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "begin_suppress_tokens": None,
        },
        gate_config={
            "model_type": "bert",
            "vocab_size": gate_vocabulary,
            "hidden_size": sizes.gate_width,
            "intermediate_size": 2 * sizes.gate_width,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        projector_type="all_in_one_small",
        gate_hidden_size=sizes.gate_width,
        num_frames=sizes.num_frames,
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO_PLACEHOLDER),
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO_PLACEHOLDER),
    )


def build_tiny_policy(
    texts: Sequence[str], seed: int, sizes: TinySizes | None = None
) -> tuple[HumanOmniForConditionalGeneration, HumanOmniProcessor]:
    """Builds an untrained tiny policy with a tokenizer that knows the words of `texts`.

    Args:
        texts: completions, or any texts with the words that the policy will write.
        seed: of the random weights.
        sizes: other sizes than the demo's.

    Returns:
        The model (evaluation mode, CPU, float32) and its processor.
    """
    sizes = sizes or TinySizes()
    tokenizer = train_tokenizer(texts, sizes.vocabulary)
    gate_tokenizer = train_wordpiece([INSTRUCTION], 256, max_length=64)
    config = tiny_config(tokenizer, len(gate_tokenizer), sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HumanOmniForConditionalGeneration(config)
    video_tokens = config.num_frames * config.tokens_per_frame
    tokenizer.chat_template = chat_template(video_tokens, config.audio_tokens, wrap=False)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[config.video_token_id, config.audio_token_id],
    )
    extractor = WhisperFeatureExtractor(
        feature_size=sizes.mels, sampling_rate=16000, hop_length=sizes.hop, chunk_length=sizes.window_seconds
    )
    processor = HumanOmniProcessor(
        feature_extractor=extractor,
        tokenizer=tokenizer,
        gate_tokenizer=gate_tokenizer,
        image_size=sizes.image_size,
        num_frames=sizes.num_frames,
    )
    return model.eval(), processor
