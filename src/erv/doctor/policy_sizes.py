"""How large a policy is: parameters, tokens of a clip, features, told from its configuration without torch.

The counts are exact (a test builds the released sizes on torch's meta device and compares). They serve the
checks that run before a GPU or a download is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from erv.errors import DataError

_DEPTHS = {"all_in_one_small": 2, "all_in_one": 4}  # residual blocks on each side of the projector's sampler


@dataclass(frozen=True)
class Language:
    """Qwen2: width, blocks, key-value width of all heads, inner width, vocabulary, longest sequence."""

    width: int
    layers: int
    key_value_width: int
    mlp: int
    vocabulary: int
    positions: int
    tied: bool

    @property
    def block_parameters(self) -> int:
        """Weights of one block."""
        width, narrow = self.width, self.key_value_width
        attention = 2 * width * width + width + 2 * (width * narrow + narrow)
        return attention + 3 * width * self.mlp + 2 * width

    @property
    def matrix_parameters(self) -> int:
        """Weights of the matrices of all blocks: what `quantize: nf4` keeps in four bits."""
        width, narrow = self.width, self.key_value_width
        return self.layers * (2 * width * width + 2 * width * narrow + 3 * width * self.mlp)

    @property
    def parameters(self) -> int:
        """All weights; a tied head counts once."""
        tables = self.vocabulary * self.width * (1 if self.tied else 2)
        return tables + self.layers * self.block_parameters + self.width

    def adapter_parameters(self, rank: int) -> int:
        """Weights of adapters on q, k, v and o of all blocks."""
        width, narrow = self.width, self.key_value_width
        return self.layers * rank * (2 * (width + width) + 2 * (width + narrow))


@dataclass(frozen=True)
class Tower:
    """SigLIP or Whisper's encoder: width, computed blocks, inner width, positions, weights besides."""

    width: int
    layers: int
    mlp: int
    positions: int
    other_parameters: int
    key_bias: bool

    @property
    def parameters(self) -> int:
        """All weights that are built."""
        width = self.width
        attention = 4 * width * width + (4 if self.key_bias else 3) * width
        block = attention + 2 * width * self.mlp + self.mlp + width + 4 * width
        return self.layers * block + self.other_parameters


@dataclass(frozen=True)
class PolicySizes:
    """Sizes of a HumanOmni policy.

    Attributes:
        name: for messages.
        language: the language model.
        vision: SigLIP; its positions are the patches of a frame.
        audio: Whisper's encoder.
        gate_encoder_parameters: weights of the BERT that reads the question.
        gate_parameters: weights of the gate.
        depth: residual blocks on each side of the visual projector's sampler.
        frames: per clip.
        image_size: side of a frame in pixels.
        audio_pool: audio positions per token.
    """

    name: str
    language: Language
    vision: Tower
    audio: Tower
    gate_encoder_parameters: int
    gate_parameters: int
    depth: int
    frames: int
    image_size: int
    audio_pool: int

    @property
    def tokens_per_frame(self) -> int:
        """The grid of patches halved in both directions, rounded up."""
        side = round(self.vision.positions**0.5)
        return ((side + 1) // 2) ** 2

    @property
    def video_tokens(self) -> int:
        """Tokens of all frames of a clip."""
        return self.frames * self.tokens_per_frame

    @property
    def audio_tokens(self) -> int:
        """Tokens of a clip's sound, however short it is."""
        return self.audio.positions // self.audio_pool

    @property
    def projector_parameters(self) -> int:
        """Weights of the visual and the audio projector."""
        width, seen = self.language.width, self.vision.width
        first, further = _bottleneck(seen, width), _bottleneck(width, width)
        branch = first + (2 * self.depth - 1) * further + 8 * width * width + width
        branch += 2 * (width * width + width)
        face = seen * width + width + width * width + width
        audio = self.audio.width * width + width + width * width + width
        return 2 * branch + face + audio

    @property
    def parameters(self) -> int:
        """All weights."""
        joined = self.projector_parameters + self.gate_parameters + self.gate_encoder_parameters
        return self.language.parameters + self.vision.parameters + self.audio.parameters + joined

    @property
    def feature_bytes(self) -> int:
        """What the towers say of a clip, float32."""
        seen = self.frames * self.vision.positions * self.vision.width
        return 4 * (seen + self.audio.positions * self.audio.width)


def _bottleneck(inside: int, width: int) -> int:
    squeezed = round(inside * 0.25)
    excite = 2 * width * squeezed + squeezed + width
    shortcut = 0 if inside == width else inside * width + 2 * width
    return inside * width + width * width + 9 * width + 6 * width + excite + shortcut


def sizes_of(config: Mapping[str, Any], name: str) -> PolicySizes | None:
    """Sizes from a policy's `config.json`: one that we wrote, or a released one.

    A released one names its towers only: SigLIP's size follows from the width of its features, Whisper and
    BERT are the same in all of them.

    Returns:
        The sizes, or None for a family whose sizes are not known here.

    Raises:
        DataError: the configuration lacks a size.
    """
    try:
        if config.get("model_type") == "humanomni":
            return _ours(config, name)
        if config.get("model_type") == "HumanOmni_qwen2":
            return _released(config, name)
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise DataError(
            f"{name}: not a policy's configuration ({error!r}); pin the checkpoint again"
        ) from error
    return None


def _ours(config: Mapping[str, Any], name: str) -> PolicySizes:
    vision, gate = config["vision_config"], config["gate_config"]
    return PolicySizes(
        name=name,
        language=_language(config["text_config"]),
        vision=_siglip(vision, vision["num_hidden_layers"]),
        audio=_whisper(config["audio_config"]),
        gate_encoder_parameters=_bert(gate),
        gate_parameters=_gate(gate["hidden_size"], config.get("gate_hidden_size", 3584)),
        depth=_DEPTHS[config.get("projector_type", "all_in_one_small")],
        frames=config.get("num_frames", 8),
        image_size=vision["image_size"],
        audio_pool=config.get("audio_pool", 3),
    )


def _released(config: Mapping[str, Any], name: str) -> PolicySizes:
    vision = _SIGLIP[config["mm_hidden_size"]]
    # Of SigLIP's blocks those above the one that is read are not built.
    layers = vision["num_hidden_layers"] + 1 + config.get("mm_vision_select_layer", -2)
    return PolicySizes(
        name=name,
        language=_language(config),
        vision=_siglip(vision, layers),
        audio=_whisper(_WHISPER_LARGE_V3),
        gate_encoder_parameters=_bert(_BERT_BASE),
        gate_parameters=_gate(_BERT_BASE["hidden_size"], 3584),
        depth=_DEPTHS[config["mm_projector_type"]],
        frames=config.get("num_frames", 8),
        image_size=vision["image_size"],
        audio_pool=3,
    )


def _language(config: Mapping[str, Any]) -> Language:
    heads = config["num_attention_heads"]
    return Language(
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        key_value_width=config["hidden_size"] // heads * config["num_key_value_heads"],
        mlp=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _siglip(config: Mapping[str, Any], layers: int) -> Tower:
    width, patch = config["hidden_size"], config["patch_size"]
    patches = (config["image_size"] // patch) ** 2
    embeddings = 3 * patch * patch * width + width + patches * width
    return Tower(width, layers, config["intermediate_size"], patches, embeddings, key_bias=True)


def _whisper(config: Mapping[str, Any]) -> Tower:
    width, positions = config["d_model"], config["max_source_positions"]
    convolutions = 3 * config["num_mel_bins"] * width + width + 3 * width * width + width
    other = convolutions + positions * width + 2 * width
    return Tower(width, config["encoder_layers"], config["encoder_ffn_dim"], positions, other, key_bias=False)


def _bert(config: Mapping[str, Any]) -> int:
    width = config["hidden_size"]
    rows = config["vocab_size"] + config["max_position_embeddings"] + config.get("type_vocab_size", 2)
    blocks = Tower(
        width, config["num_hidden_layers"], config["intermediate_size"], 0, 0, key_bias=True
    ).parameters
    return blocks + rows * width + 2 * width


def _gate(width: int, inner: int) -> int:
    return width * inner + inner + inner * 3 + 3


_SIGLIP = {  # base-patch16-224 and so400m-patch14-384, told by the width of their features
    768: {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "patch_size": 16,
        "image_size": 224,
    },
    1152: {
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
    "max_source_positions": 1500,
}
_BERT_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
# What the released checkpoints' config.json say of their language model and their projector.
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


def nominal(name: str) -> PolicySizes:
    """Sizes of a released model, known without its files; `name` is a key of `RELEASED`."""
    return _released(RELEASED[name], name)


def tower_configs(released: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The towers of a released configuration as parts of ours: what a model of its sizes is built from."""
    vision = _SIGLIP[released["mm_hidden_size"]]
    blocks = vision["num_hidden_layers"] - 1  # the last is never read
    return {
        "vision_config": {**vision, "model_type": "siglip_vision_model", "num_hidden_layers": blocks},
        "audio_config": {**_WHISPER_LARGE_V3, "model_type": "whisper"},
        "gate_config": {**_BERT_BASE, "model_type": "bert"},
    }
