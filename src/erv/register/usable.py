"""Whether a folder from elsewhere has what answering needs, so that no version fails on every clip.

The weights of a policy may need more memory than this machine has. A safetensors file says in its header what
it holds and how long it is; this is compared with what the policy's class loads, on the device `meta`, which
keeps no numbers. A verifier is small, and loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.errors import DataError, RegistryError
from erv.model_folders import load_model, load_part
from erv.policies.common.families import family_module, read_config

_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
# Released checkpoints for which the family makes the processor itself.
_WITHOUT_PROCESSOR = ("qwen2_5_omni", "qwen2_5_omni_thinker")
_FETCH = "fetch the folder again, whole"


def check_usable(policy: Path, family: str, verifier: Path, serving: Mapping[str, Any]) -> None:
    """Refuses a policy or a verifier that could not answer.

    Args:
        policy: a folder that `check_folder` took.
        family: of the policy.
        verifier: a folder that `check_folder` took.
        serving: content of `serving.json`, in which `fault_of` found nothing.

    Raises:
        RegistryError: weights, tokenizers or the chat template are missing or damaged, or clips are decoded
            to another shape than the policy takes.
        TrainingError: the policy's weights and its configuration don't fit together. Of a released
            checkpoint, whose names the family maps as it loads them, only the files are looked at.
        DataError: the verifier can't be loaded.
    """
    from erv.verifier import EmotionVerifier

    for folder in (policy, verifier):
        _check_weights(folder)
    EmotionVerifier.from_pretrained(verifier)
    if read_config(policy)["model_type"] not in _WITHOUT_PROCESSOR:
        _check_clips(_processor(policy, family), policy, serving)
        _check_fit(policy)


def _check_fit(policy: Path) -> None:
    """Compares names and shapes of the weights with those of the policy's class, which is registered."""
    from transformers import AutoModelForCausalLM

    from erv.policies.common.loading import check_loaded

    try:
        _, info = load_model(
            AutoModelForCausalLM,
            policy,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_loaded` reports them in one sentence
        )
    except (OSError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise RegistryError(f"{policy}: its weights can't be loaded ({said}); {_FETCH}") from error
    check_loaded(policy, info, unexpected=False)


def _check_weights(folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for name in _shards(folder):
        path = folder / name
        if not path.is_file():
            raise RegistryError(f"{folder}: its {_INDEX} names {name}, which is missing; {_FETCH}")
        try:
            with safe_open(path, framework="np"):
                pass
        except (OSError, SafetensorError) as error:
            raise RegistryError(f"{path}: not a whole safetensors file ({error}); {_FETCH}") from None


def _shards(folder: Path) -> list[str]:
    """The names of the files with the weights."""
    if (folder / _WEIGHTS).is_file():
        return [_WEIGHTS]
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        raise RegistryError(f"{folder}: has no weights ({_WEIGHTS} or {_INDEX}); {_FETCH}") from None
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise RegistryError(f"{folder / _INDEX}: not an index of weights ({error}); {_FETCH}") from None
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise RegistryError(f"{folder / _INDEX}: names no files, or some outside the folder; {_FETCH}")
    return names


def _processor(policy: Path, family: str) -> Any:
    """What turns clips and questions into numbers; it has a tokenizer and a chat template."""
    if not (policy / "processor_config.json").is_file():
        raise RegistryError(
            f"{policy}: has no processor (processor_config.json), as a released checkpoint;"
            " docs/policies.md says how to make a policy folder of it"
        )
    from transformers import AutoProcessor

    family_module(family)  # registers its processor
    try:
        processor: Any = load_part(AutoProcessor, policy)
    except (DataError, OSError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise RegistryError(f"{policy}: its processor can't be loaded ({said}); {_FETCH}") from error
    tokenizer = getattr(processor, "tokenizer", None)
    files = sorted(set(getattr(tokenizer, "vocab_files_names", {}).values()))
    if not any((policy / name).is_file() for name in files):  # transformers makes an empty one of nothing
        raise RegistryError(f"{policy}: has no tokenizer (none of {', '.join(files)}); {_FETCH}")
    if not getattr(tokenizer, "chat_template", None):
        raise RegistryError(f"{policy}: its tokenizer has no chat template, so it can't be asked; {_FETCH}")
    return processor


def _check_clips(processor: Any, policy: Path, serving: Mapping[str, Any]) -> None:
    """Compares the shape of decoded clips with what the policy takes."""
    import numpy as np

    from erv.policies.common.clips import check_clip

    frames, size = serving["frames"], serving["size"]
    try:
        check_clip(
            np.broadcast_to(np.uint8(0), (frames, size, size, 3)),
            np.zeros(1, np.int16),
            serving["sample_rate"],
            num_frames=processor.num_frames,
            image_size=processor.image_size,
            rate=processor.feature_extractor.sampling_rate,
        )
    except DataError as error:
        raise RegistryError(
            f"{policy}: clips would be decoded by its serving.json, or by params.yaml if it has none, so that"
            f" {error}"
        ) from None
