"""`from_pretrained` for our folders and for unconverted released checkpoints."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig

from erv.errors import TrainingError
from erv.model_folders import load_part
from erv.policies.common.loading import check_loaded
from erv.policies.humanomni.checkpoint_files import CheckpointFiles
from erv.policies.humanomni.configuration import HumanOmniConfig
from erv.policies.humanomni.released_config import RELEASED_MODEL_TYPE
from erv.policies.humanomni.released_weights import released_weights

_TABLE = "model.language_model.embed_tokens.weight"
# Options that only say where to look; by the time they are dropped the weights have been found.
_ONLY_FOR_FILES = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "token",
    "revision",
    "subfolder",
    "use_safetensors",
    "mm_vision_tower",
    "mm_audio_tower",
    "name_or_path",
)


class LoadsReleased:
    """Lets a model class read released checkpoints; mix it in before `PreTrainedModel`.

    transformers' own way of renaming weights on loading (`WeightConverter`) is not used. It is undone on
    saving, which would write our models in the released layout, and it can't take towers from other folders.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Loads one of our folders or a released checkpoint; the towers come frozen.

        Args:
            pretrained_model_name_or_path: a folder, or a name on the hub.
            *args: passed on.
            **kwargs: the options of `PreTrainedModel.from_pretrained`. For a released checkpoint also
                `mm_vision_tower` and `mm_audio_tower`: folders or hub names of towers to use instead of those
                that its configuration names; "" means none, so that nothing is compared.

        Raises:
            TrainingError: a file is missing or is a pickle, or weights and configuration don't fit together.
        """
        name = pretrained_model_name_or_path
        kwargs |= {"trust_remote_code": False, "use_safetensors": True}
        if name is None:
            return super().from_pretrained(None, *args, **kwargs)  # type: ignore[misc]
        files = CheckpointFiles(name, **kwargs)
        config = files.read_json("config.json")
        if config is not None and config.get("model_type") == RELEASED_MODEL_TYPE:
            model = cls._load_released(files, config, *args, **kwargs)
        else:
            if config is None and files.folder and "config" not in kwargs:
                raise TrainingError(
                    f"{files.name}: no config.json here, so this is not a checkpoint; give the folder of one"
                )
            if config is not None and files.folder and not any(files.folder.glob("*.safetensors")):
                raise TrainingError(files.no_weights())
            model = cls._load_ours(files, *args, **kwargs)
        _freeze(model[0] if isinstance(model, tuple) else model)
        return model

    @classmethod
    def _load_ours(cls, files: CheckpointFiles, *args: Any, **kwargs: Any) -> Any:
        with_info = kwargs.pop("output_loading_info", False)
        options = {"ignore_mismatched_sizes": True, **kwargs}  # `check_loaded` reports them in one sentence
        model, info = super().from_pretrained(  # type: ignore[misc]
            files.name, *args, output_loading_info=True, **options
        )
        check_loaded(files.name, info, unexpected=False)  # the inner model has no use for the head
        return (model, info) if with_info else model

    @classmethod
    def _load_released(
        cls, files: CheckpointFiles, released: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        config = kwargs.pop("config", None)
        if not isinstance(config, PreTrainedConfig):
            options = {**files.options, **files.towers}
            config = load_part(
                HumanOmniConfig, files.name if config is None else config, local=False, **options
            )
        config = copy.deepcopy(config)
        with_info = kwargs.pop("output_loading_info", False)
        weights = released_weights(released, files, config.vision_config.num_hidden_layers)
        # The table decides: fine-tuning scripts resize it without updating every configuration.
        if _TABLE in weights:
            config.text_config.vocab_size = weights[_TABLE].shape[0]
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        if kwargs.get("generation_config") is None:
            kwargs["generation_config"] = _generation_config(files, config)
        rest = {key: value for key, value in kwargs.items() if key not in _ONLY_FOR_FILES}
        model, info = super().from_pretrained(  # type: ignore[misc]
            None,
            *args,
            config=config,
            state_dict=_for_class(cls, weights),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **rest,
        )
        check_loaded(files.name, info, unexpected=True)
        model.name_or_path = model.config.name_or_path = files.name
        return (model, info) if with_info else model


def _for_class(cls: type, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the names that the class uses: the inner model has neither prefix nor head."""
    if getattr(cls, "_tied_weights_keys", None):
        return weights
    return {
        name.removeprefix("model."): weight for name, weight in weights.items() if name != "lm_head.weight"
    }


def _generation_config(files: CheckpointFiles, config: HumanOmniConfig) -> GenerationConfig:
    """`generation_config.json` of the checkpoint, else greedy decoding up to its end token."""
    content = files.read_json("generation_config.json")
    if content is not None:
        return GenerationConfig.from_dict(content)
    text = config.text_config
    return GenerationConfig(
        bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id
    )


def _freeze(model: Any) -> None:
    """Freezes the towers again: loading makes every weight trainable."""
    getattr(model, "model", model).freeze_towers()


__all__ = ["LoadsReleased"]
