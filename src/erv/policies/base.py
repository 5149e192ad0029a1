"""A policy: the model that answers, with the processor that prepares what it sees and hears.

`PolicyModel` and `PolicyProcessor` are all that training, generation and serving know of a policy, so that
one model can take another's place. Each family of models is a module of its own that `load_policy` finds by
the `model_type` of the folder; docs/policies.md is the recipe for one more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from erv.errors import TrainingError
from erv.prompts import INSTRUCTION

Tensors = dict[str, torch.Tensor]


def _humanomni() -> ModuleType:
    from erv.policies import humanomni

    return humanomni


def _qwen_omni() -> ModuleType:
    from erv.policies import qwen_omni

    return qwen_omni


# `model_type` of a folder's config.json -> the module that has `load(folder, dtype) -> (model, processor)`.
FAMILIES: dict[str, Callable[[], ModuleType]] = {
    "humanomni": _humanomni,
    "HumanOmni_qwen2": _humanomni,  # as it was released
    "qwen_omni": _qwen_omni,
    "qwen2_5_omni": _qwen_omni,  # as it was released: the thinker is taken, the parts that speak are left
    "qwen2_5_omni_thinker": _qwen_omni,
}


class PolicyModel(Protocol):
    """A `transformers` model that sees and hears.

    Besides what is named here, `forward` and `generate` take what `encode_clips` returns, the processor's
    `question_inputs`, and `clip_index`: long [rows], the clip that each row shows. Media are thus encoded and
    projected once per clip, however many rows ask about it. `base_model` (the model without its head) takes
    the same and returns `last_hidden_state` [rows, length, hidden] and, with `use_cache=True`,
    `past_key_values`. Rows may be padded on either side.

    A model whose positions are more than a count of tokens also has `positions(input_ids, attention_mask)`,
    see `token_positions`; its `forward` calls it where `position_ids` are not given.
    """

    config: Any
    generation_config: Any
    device: torch.device

    @property
    def placeholder_ids(self) -> list[int]:
        """Tokens that stand for frames and sound; generation never writes one."""

    def encode_clips(self, **prepared: torch.Tensor) -> Tensors:
        """What the frozen towers make of clips, without gradient, before all that trains.

        Args:
            **prepared: what `PolicyProcessor.prepare_clip` returned, stacked: [clips, ...].

        Returns:
            Tensors [clips, ...] under the names that `forward` takes them by.
        """

    def freeze_towers(self) -> None:
        """Takes the gradients off what `encode_clips` runs."""

    def freeze_projectors(self) -> None:
        """Takes the gradients off all between towers and language model."""

    def freeze_question_encoder(self) -> None:
        """Takes the gradients off what reads the question beside the language model, if any."""

    def get_decoder(self) -> nn.Module:
        """The language model, where adapters go."""

    def generate(self, **inputs: Any) -> Any:
        """Completions; the inputs of the clips are read once, with the prompt."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All weights by name."""


class PolicyProcessor(Protocol):
    """From frames, sound and text to what the model takes.

    Attributes:
        tokenizer: fast and plain; its chat template expands the placeholders of a user turn.
        num_frames: frames per clip.
        image_size: side of a frame in pixels.
    """

    tokenizer: Any
    num_frames: int
    image_size: int

    def prepare_clip(self, frames: np.ndarray, audio: np.ndarray, sample_rate: int) -> Tensors:
        """One clip (uint8 RGB [T, S, S, 3], int16 mono [n], Hz) as tensors without a batch dimension.

        Raises:
            DataError: the frames or the sound are not what this policy takes.
        """

    def build_messages(
        self, instruction: str = INSTRUCTION, *, video: bool = True, audio: bool = True
    ) -> list[dict[str, str]]:
        """The user turn for the tokenizer's chat template."""

    def prompt_ids(
        self, instruction: str = INSTRUCTION, *, video: bool = True, audio: bool = True
    ) -> list[int]:
        """Token ids of the prompt, placeholders expanded, up to where the completion begins."""

    def question_inputs(self, instruction: str = INSTRUCTION) -> Tensors:
        """Further inputs of the model that are the same for every clip; empty for most policies."""

    def save_pretrained(self, folder: Path) -> Any:
        """Writes its files into a policy folder."""


@dataclass
class Policy:
    """A model and its processor, loaded together and saved together."""

    model: Any  # a PolicyModel; a PreTrainedModel to the libraries
    processor: Any  # a PolicyProcessor

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        device: torch.device = self.model.device
        return device

    def save(self, folder: Path) -> None:
        """Writes a `from_pretrained` folder: written beside it, then renamed: whole or absent."""
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.model.save_pretrained(partial)
        self.processor.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)


def load_policy(folder: str | Path, device: str | torch.device = "cpu", dtype: str = "float32") -> Policy:
    """Loads a policy folder in evaluation mode, its towers frozen.

    Args:
        folder: what `Policy.save` wrote.
        device: torch device.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        TrainingError: the folder is not a policy, or its model neither sees nor hears.
    """
    folder = Path(folder)
    model, processor = family_of(folder).load(folder, getattr(torch, dtype))
    model.freeze_towers()  # loading makes every weight trainable
    return Policy(model=model.to(device).eval(), processor=processor)


def token_positions(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """`position_ids` for a policy model: its own `positions`, or tokens counted without padding.

    They depend on nothing after a token, so that a prompt alone has those of the prompt with a completion,
    and each token of a completion is one further than the one before.

    Args:
        model: a PolicyModel.
        input_ids: long [rows, length].
        attention_mask: [rows, length]; 0 marks padding on either side.

    Returns:
        Long [rows, length], or [axes, rows, length] for a model that counts along several axes.
    """
    own = getattr(model, "positions", None)
    if own is not None:
        found: torch.Tensor = own(input_ids, attention_mask)
        return found
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def family_of(folder: Path) -> ModuleType:
    """The module of `FAMILIES` that loads a policy folder.

    Raises:
        TrainingError: no config.json here, or one of a model that no family knows.
    """
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise TrainingError(
            f"{folder}: no policy here (config.json is missing); run the stage that writes it first"
        ) from None
    except (ValueError, AttributeError) as error:
        raise TrainingError(f"{path}: not a model's configuration ({error})") from error
    if kind not in FAMILIES:
        raise TrainingError(
            f"{path}: model_type {kind!r} is no policy that sees and hears (known: {', '.join(FAMILIES)});"
            " a text-only model can't be trained on clips; docs/policies.md tells how to add a family"
        )
    return FAMILIES[kind]()
