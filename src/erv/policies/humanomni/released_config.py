"""Reads the configuration of a released HumanOmni, R1-Omni or ERV checkpoint.

A released `config.json` names its towers but doesn't hold their sizes. We look for the sizes, in this order:

1. in a file beside the weights (`siglip_config.json`, `whisper_config.json`, `bert_config.json`);
2. in the folder or hub name that the configuration gives (`mm_vision_tower`, `mm_audio_tower`; absolute, or
   relative to the checkpoint or the working directory);
3. if that is a path on the authors' machine, in the public model with the same last name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import TrainingError
from erv.policies.humanomni.checkpoint_files import CheckpointFiles

RELEASED_MODEL_TYPE = "HumanOmni_qwen2"
GATE_HIDDEN_SIZE = 3584  # hard-coded in the released code, for every model size

_LANGUAGE_KEYS = """
    vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
    max_position_embeddings rms_norm_eps hidden_act attention_dropout use_sliding_window sliding_window
    max_window_layers
    tie_word_embeddings bos_token_id eos_token_id pad_token_id initializer_range
"""
_NOT_SIZES = ("architectures", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "auto_map")
_PROJECTORS = ("all_in_one_small", "all_in_one")


@dataclass(frozen=True)
class Part:
    """A part of the network whose sizes are in a configuration of its own.

    Attributes:
        word: the part's name in messages.
        file: name of its configuration file beside the weights.
        key: key under which a released configuration names the part; empty for the gate, which has no key.
        default: the name to look for if there is no key.
        model_types: values of `model_type` that its configuration may have.
        public: hub names of the public models, matched by their last part.
    """

    word: str
    file: str
    key: str
    default: str
    model_types: tuple[str, ...]
    public: tuple[str, ...]


VISION = Part(
    "vision tower (SigLIP)",
    "siglip_config.json",
    "mm_vision_tower",
    "",
    ("siglip", "siglip_vision_model"),
    ("google/siglip-base-patch16-224", "google/siglip-so400m-patch14-384"),
)
AUDIO = Part(
    "audio tower (Whisper)",
    "whisper_config.json",
    "mm_audio_tower",
    "",
    ("whisper",),
    ("openai/whisper-large-v3",),
)
GATE = Part(
    "gate encoder (BERT)",
    "bert_config.json",
    "",
    "bert-base-uncased",
    ("bert",),
    ("google-bert/bert-base-uncased",),
)


def named_sources(
    released: dict[str, Any], files: CheckpointFiles, part: Part, *, offline: bool = False
) -> Iterator[CheckpointFiles]:
    """Places other than the checkpoint itself where a part may be, in the order of the search.

    Args:
        released: the released `config.json`.
        files: the checkpoint's files.
        part: the part to look for.
        offline: whether to look on this machine only.
    """
    name = files.towers.get(part.key, released.get(part.key)) if part.key else part.default
    if not name:
        return
    folders = [Path(name).expanduser()]
    if files.folder is not None:
        folders.insert(0, files.folder / name)
    found = [folder for folder in folders if folder.is_dir()]
    if found:
        yield CheckpointFiles(found[0])
        return
    options = {key: value for key, value in files.options.items() if key not in ("revision", "subfolder")}
    if offline:
        options["local_files_only"] = True
    last = Path(name).name
    hub = [str(name)] if str(name).count("/") == 1 and not Path(name).is_absolute() else []
    hub += [public for public in part.public if public.rsplit("/", 1)[1] == last and public not in hub]
    for candidate in hub:
        yield CheckpointFiles(candidate, **options)


def convert_released(released: dict[str, Any], files: CheckpointFiles) -> dict[str, Any]:
    """Our configuration, as a mapping, from a released `config.json` and the configurations of its towers.

    Raises:
        TrainingError: a configuration is missing, or is of a kind that HumanOmni does not use.
    """
    vision, audio, gate = (_part_config(released, files, part) for part in (VISION, AUDIO, GATE))
    return convert_config(released, vision, audio, gate, where=files.name)


def convert_config(
    released: dict[str, Any],
    vision: dict[str, Any],
    audio: dict[str, Any],
    gate: dict[str, Any],
    *,
    where: str = "config.json",
) -> dict[str, Any]:
    """Our configuration, as a mapping, from four released ones.

    Args:
        released: `config.json` of the checkpoint (`model_type` "HumanOmni_qwen2").
        vision: `config.json` of its SigLIP tower, or of the complete SigLIP model.
        audio: `config.json` of its Whisper tower.
        gate: `config.json` of bert-base-uncased.
        where: the checkpoint, for messages.

    Raises:
        TrainingError: the network does not support the value of a key.
    """
    for key, allowed in (
        ("mm_projector_type", _PROJECTORS),
        ("mm_audio_projector_type", ("mlp2x_gelu", None)),
        ("mm_vision_select_feature", ("patch", None)),
    ):
        if released.get(key) not in allowed:
            names = " or ".join(str(name) for name in allowed if name)
            raise TrainingError(f"{where}: {key} is {released.get(key)!r}, but only {names} can be loaded")
    text = {key: released[key] for key in _LANGUAGE_KEYS.split() if key in released}
    scaling = dict(released.get("rope_scaling") or {})
    scaling["rope_type"] = scaling.pop("rope_type", scaling.pop("type", "default"))
    text["rope_parameters"] = {**scaling, "rope_theta": released.get("rope_theta", 1e6)}
    vision = vision.get("vision_config", vision)
    layers, select = vision.get("num_hidden_layers", 12), released.get("mm_vision_select_layer", -2)
    blocks = select if select >= 0 else layers + 1 + select
    if not 0 < blocks <= layers:
        raise TrainingError(f"{where}: mm_vision_select_layer is {select}, but SigLIP has {layers} blocks")
    return {
        "model_type": "humanomni",
        "text_config": {**text, "model_type": "qwen2"},
        "vision_config": {**_sizes(vision), "model_type": "siglip_vision_model", "num_hidden_layers": blocks},
        "audio_config": {**_sizes(audio), "model_type": "whisper"},
        "gate_config": {**_sizes(gate), "model_type": "bert"},
        "projector_type": released["mm_projector_type"],
        "gate_hidden_size": GATE_HIDDEN_SIZE,
        "num_frames": released.get("num_frames", 8),
        "tie_word_embeddings": released.get("tie_word_embeddings", False),
        "dtype": released.get("torch_dtype", released.get("dtype")),
    }


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NOT_SIZES}


def _part_config(released: dict[str, Any], files: CheckpointFiles, part: Part) -> dict[str, Any]:
    """The configuration of a part, from the first place that has one."""
    looked = [f"{part.file} beside the weights"]
    config = files.read_json(part.file)
    if config is None:
        for source in named_sources(released, files, part):
            looked.append(f"config.json of {source.name}")
            config = source.read_json("config.json")
            if config is not None:
                break
    if config is None:
        named = f" {part.key} is {released[part.key]!r}." if released.get(part.key) else ""
        raise TrainingError(
            f"{files.name}: the configuration of its {part.word} was not found (looked for"
            f" {', '.join(looked)}).{named} Put it beside the weights as {part.file}"
            + (f", or give {part.key}=FOLDER" if part.key else "")
        )
    kind = config.get("model_type")
    if kind is not None and kind not in part.model_types:
        raise TrainingError(
            f"{files.name}: the configuration found for its {part.word} is of model_type {kind!r}, expected"
            f" {' or '.join(part.model_types)}"
        )
    return config


__all__ = [
    "AUDIO",
    "GATE",
    "RELEASED_MODEL_TYPE",
    "VISION",
    "Part",
    "convert_config",
    "convert_released",
    "named_sources",
]
