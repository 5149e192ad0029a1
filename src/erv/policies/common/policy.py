"""A policy: the model that answers, with the processor that prepares what it sees and hears.

`PolicyModel` and `PolicyProcessor` are all that training, generation and serving know of a policy, so that
one model can take another's place. Each family of models is a package of its own that `load_policy` finds by
the `model_type` of the folder; docs/policies.md is the recipe for one more.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from erv.files import model_folder
from erv.policies.common.families import check_family, family_module, family_of, read_config
from erv.prompts import INSTRUCTION

if TYPE_CHECKING:  # so that the checks before a run can ask for a family without loading torch
    import numpy as np
    import torch
    from torch import nn

    Tensors = dict[str, torch.Tensor]

ADAPTER = "adapter"  # its folder within a policy's


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

    def save(
        self, folder: Path, *, state: Mapping[str, torch.Tensor] | None = None, adapter: Path | None = None
    ) -> None:
        """Writes a `from_pretrained` folder, whole or not at all.

        Args:
            folder: replaced as a whole.
            state: the weights, where the model holds shards of them only.
            adapter: the folder of an adapter that is merged into the weights, to be kept with them.
        """
        with model_folder(Path(folder)) as whole:
            self.model.save_pretrained(whole, **({} if state is None else {"state_dict": state}))
            self.processor.save_pretrained(whole)
            if adapter is not None:
                shutil.copytree(adapter, whole / ADAPTER)


def load_policy(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
    *,
    family: str | None = None,
) -> Policy:
    """Loads a policy folder in evaluation mode, its towers frozen.

    Args:
        folder: what `Policy.save` wrote.
        device: torch device.
        dtype: "float32", "bfloat16" or "float16".
        family: the one that `policy.family` expects. None takes the folder's own: a bundle that is served
            comes without parameters.

    Raises:
        TrainingError: the folder is not a policy, or one of another family than expected.
    """
    import torch

    folder = Path(folder)
    if family is None:
        family = family_of(read_config(folder), folder)
    else:
        check_family(folder, family)
    model, processor = family_module(family).load(folder, getattr(torch, dtype))
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
