"""A policy: the model that answers, and the processor that prepares what the model sees and hears.

`PolicyModel` and `PolicyProcessor` are all that training, generation and serving know about a policy, so that
one model can replace another. Each family of models is a package of its own, which `load_policy` finds by the
folder's `model_type`. docs/policies.md explains how to add a family.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from erv.errors import TrainingError
from erv.files import model_folder
from erv.model_folders import check_folder
from erv.policies.common.arm import read_arm
from erv.policies.common.families import check_family, family_module, family_of, read_config
from erv.prompts import INSTRUCTION, Prompt

if TYPE_CHECKING:  # so that the checks before a run can look up a family without loading torch
    import numpy as np
    import torch
    from torch import nn

    Tensors = dict[str, torch.Tensor]

ADAPTER = "adapter"  # its folder within a policy's


class PolicyModel(Protocol):
    """A `transformers` model that sees and hears.

    In addition to the members below, `forward` and `generate` take what `encode_clips` returns, the
    processor's `question_inputs`, and `clip_index`: long [rows], the clip that each row shows. Media are thus
    encoded and projected once per clip, however many rows ask about it. `base_model` (the model without its
    head) takes the same inputs. It returns `last_hidden_state` [rows, length, hidden] and, with
    `use_cache=True`, `past_key_values`. Rows may be padded on either side.

    A model whose positions are not simply a count of tokens also has `positions(input_ids, attention_mask)`
    (see `token_positions`). Its `forward` calls that method when `position_ids` are not given.
    """

    config: Any
    generation_config: Any
    device: torch.device

    @property
    def placeholder_ids(self) -> list[int]:
        """Ids of the tokens that stand for frames and sound; generation never produces one."""

    def encode_clips(self, **prepared: torch.Tensor) -> Tensors:
        """Runs the frozen towers on clips, without gradient; everything that trains comes after this.

        Args:
            **prepared: what `PolicyProcessor.prepare_clip` returned, stacked: [clips, ...].

        Returns:
            Tensors [clips, ...], named like the arguments of `forward` that take them.
        """

    def freeze_towers(self) -> None:
        """Freezes the parts that `encode_clips` runs."""

    def freeze_projectors(self) -> None:
        """Freezes everything between the towers and the language model."""

    def freeze_question_encoder(self) -> None:
        """Freezes the encoder that reads the question besides the language model, if there is one."""

    def get_decoder(self) -> nn.Module:
        """The language model, to which adapters are added."""

    def generate(self, **inputs: Any) -> Any:
        """Generates completions; the clip inputs are read once, with the prompt."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All weights by name."""


class PolicyProcessor(Protocol):
    """Turns frames, sound and text into inputs of the model.

    Attributes:
        tokenizer: a plain fast tokenizer; its chat template expands the placeholders of a user turn.
        num_frames: frames per clip.
        image_size: side of a frame in pixels.
        prompt: what the policy is asked; saved with it.
    """

    tokenizer: Any
    num_frames: int
    image_size: int
    prompt: Prompt

    def use_prompt(self, prompt: Prompt) -> None:
        """Changes what the policy is asked."""

    def prepare_clip(self, frames: np.ndarray, audio: np.ndarray, sample_rate: int) -> Tensors:
        """One clip as tensors without a batch dimension.

        Args:
            frames: uint8 RGB [T, S, S, 3].
            audio: int16 mono [n].
            sample_rate: in Hz.

        Raises:
            DataError: this policy does not take such frames or such sound.
        """

    def build_messages(
        self, instruction: str | None = None, *, video: bool = True, audio: bool = True
    ) -> list[dict[str, str]]:
        """The turns before the answer, for the tokenizer's chat template."""

    def prompt_ids(
        self, instruction: str | None = None, *, video: bool = True, audio: bool = True
    ) -> list[int]:
        """Token ids of the prompt up to the completion, with expanded placeholders; None asks `prompt`."""

    def question_inputs(self, instruction: str | None = None) -> Tensors:
        """Further model inputs that are the same for every clip; empty for most policies."""

    def save_pretrained(self, folder: Path) -> Any:
        """Writes the processor's files into a policy folder."""


@dataclass
class Policy:
    """A model and its processor, loaded together and saved together."""

    model: Any  # a PolicyModel; a PreTrainedModel to the libraries
    processor: Any  # a PolicyProcessor
    begins: str = ""  # what every completion begins with; part of the prompt, see `erv.policies.common.arm`

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        device: torch.device = self.model.device
        return device

    def save(
        self, folder: Path, *, state: Mapping[str, torch.Tensor] | None = None, adapter: Path | None = None
    ) -> None:
        """Writes a `from_pretrained` folder, whole or not at all.

        Args:
            folder: replaced as a whole.
            state: the weights, if the model holds only shards of them.
            adapter: folder of an adapter that is merged into the weights, kept beside them.
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
    """Loads a policy folder in evaluation mode, with its towers frozen; follows its `arm.json`.

    Args:
        folder: a folder that `Policy.save` wrote.
        device: torch device.
        dtype: "float32", "bfloat16" or "float16".
        family: the family that `policy.family` names. None accepts whatever family the folder has, since a
            served bundle comes without parameters.

    Raises:
        TrainingError: the folder is not a policy, belongs to another family, or a file in it is damaged.
        DataError: loading it would run code of the folder.
    """
    import torch

    arm = read_arm(Path(folder))
    folder = Path(arm.folder or folder)
    check_folder(folder)
    if family is None:
        family = family_of(read_config(folder), folder)
    else:
        check_family(folder, family)
    try:
        model, processor = family_module(family).load(folder, getattr(torch, dtype))
    except (OSError, ValueError, RecursionError) as error:  # see `load_model`
        said = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{folder}: can't be loaded as a policy of the family {family} ({said});"
            " fetch it again, or run the stage that writes it"
        ) from error
    model.freeze_towers()  # loading makes every weight trainable
    if arm.begins:
        _begin_with(processor, arm.begins)
    return Policy(model=model.to(device).eval(), processor=processor, begins=arm.begins)


def _begin_with(processor: Any, text: str) -> None:
    """Makes the processor's prompts go on with the beginning of the completion."""
    plain, given = processor.prompt_ids, beginning_ids(processor.tokenizer, text)

    def prompt_ids(*args: Any, **kwargs: Any) -> list[int]:
        return [*plain(*args, **kwargs), *given]

    processor.prompt_ids = prompt_ids


def beginning_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of the beginning of a completion."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def stored_prompt(folder: Path) -> Prompt:
    """What a policy is asked, from its folder alone, or from the one that an arm stands for.

    The default where that folder doesn't say.

    Raises:
        TrainingError: the folder's `processor_config.json` is damaged.
        DataError: as `read_arm`.
    """
    path = Path(read_arm(folder).folder or folder) / "processor_config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        text, system = content.get("instruction"), content.get("system")
    except FileNotFoundError:  # a released checkpoint
        return Prompt()
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise TrainingError(f"{path}: not a processor's configuration ({error})") from None
    return Prompt(INSTRUCTION if text is None else str(text), None if system is None else str(system))


def token_positions(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """`position_ids` for a policy model: from its own `positions`, or the count of tokens without padding.

    A token's position depends on nothing that follows it. A prompt therefore has the same positions with and
    without a completion, and each token of a completion is one position after the token before it.

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
