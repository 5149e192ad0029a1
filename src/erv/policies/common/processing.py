"""What the processors of all families share: checks of clips, log-mel, and prompts in ChatML."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from erv.model_folders import apply_chat
from erv.policies.common.clips import check_clip, waveform_of
from erv.prompts import AUDIO_PLACEHOLDER, INSTRUCTION, VIDEO_PLACEHOLDER, Prompt, user_content


def chatml(video: str, audio: str, system: str | None = None) -> str:
    """A ChatML template that expands each placeholder of a user turn into the tokens it stands for.

    Args:
        video: Jinja expression that replaces the placeholder of the frames.
        audio: Jinja expression that replaces the placeholder of the sound.
        system: system turn for conversations that have none; None adds no system turn.
    """
    opening = (
        ""
        if system is None
        else (
            "{%- if loop.first and message['role'] != 'system' -%}"
            f"{{{{- '<|im_start|>system\\n{system}<|im_end|>\\n' -}}}}"
            "{%- endif -%}"
        )
    )
    return (
        "{%- for message in messages -%}"
        "{%- set content = message['content'] -%}"
        f"{opening}"
        "{%- if message['role'] == 'user' -%}"
        f"{{%- set content = content | replace('{VIDEO_PLACEHOLDER}', {video})"
        f" | replace('{AUDIO_PLACEHOLDER}', {audio}) -%}}"
        "{%- endif -%}"
        "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


class ClipProcessor(ProcessorMixin):
    """A processor for clips of a fixed geometry; each family adds how it prepares frames.

    The family's own `__init__` sets these attributes, because transformers reads its signature.

    Attributes:
        feature_extractor: computes the log-mel of a fixed window.
        tokenizer: a fast tokenizer; its chat template expands the placeholders, so it also works on its own.
        num_frames: frames per clip.
        image_size: side of a frame in pixels.
        instruction: what the policy is asked, if that is not the method's own question; see `Prompt.text`.
        system: the system turn before it, if the policy was trained with one of its own.
    """

    feature_extractor: Any
    tokenizer: Any
    num_frames: int
    image_size: int
    instruction: str | None
    system: str | None

    @property
    def prompt(self) -> Prompt:
        """What the policy is asked."""
        return Prompt(INSTRUCTION if self.instruction is None else self.instruction, self.system)

    def use_prompt(self, prompt: Prompt) -> None:
        """Changes what the policy is asked; `save_pretrained` writes it for whoever loads the policy."""
        self.instruction = None if prompt.text == INSTRUCTION else prompt.text
        self.system = prompt.system

    def to_dict(self) -> dict[str, Any]:
        """The content of `processor_config.json`; has a prompt only if it is not the default one."""
        content: dict[str, Any] = super().to_dict()
        for name in ("instruction", "system"):
            if content.get(name) is None:
                content.pop(name, None)
        return content

    def prepare_frames(self, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """The vision tower's input for the frames of a clip, uint8 RGB [T, S, S, 3]."""
        raise NotImplementedError

    def prepare_clip(
        self, frames: np.ndarray, audio: np.ndarray, sample_rate: int
    ) -> dict[str, torch.Tensor]:
        """The towers' inputs for a clip.

        Args:
            frames: uint8 RGB [T, S, S, 3].
            audio: int16 mono [n]; cut or padded with silence to the length of the window. An empty array (a
                clip without sound) gives the log-mel of silence: leave `<audio>` out of its prompt.
            sample_rate: in Hz; must be the feature extractor's.

        Returns:
            What `prepare_frames` returns, and `input_features` float32 [mels, steps].

        Raises:
            DataError: this policy does not take the clip's shape, type or sample rate.
        """
        rate = self.feature_extractor.sampling_rate
        check_clip(
            frames, audio, sample_rate, num_frames=self.num_frames, image_size=self.image_size, rate=rate
        )
        features = self.feature_extractor(waveform_of(audio), sampling_rate=rate, return_tensors="np")
        return {
            **self.prepare_frames(frames),
            "input_features": torch.from_numpy(features["input_features"][0]),
        }

    def build_messages(
        self, instruction: str | None = None, *, video: bool = True, audio: bool = True
    ) -> list[dict[str, str]]:
        """The turns before the answer about a clip, for the tokenizer's chat template; see `prompt_ids`."""
        return messages(self.prompt, instruction, video=video, audio=audio)

    def prompt_ids(
        self, instruction: str | None = None, *, video: bool = True, audio: bool = True
    ) -> list[int]:
        """Token ids of the prompt up to the completion, with expanded placeholders.

        Args:
            instruction: from `Prompt.ask`; None for the policy's prompt without what belongs to one clip.
            video: whether the clip has frames.
            audio: whether the clip has sound.

        Raises:
            DataError: see `build_messages` of the family; or the tokenizer's chat template can't be rendered.
        """
        messages = self.build_messages(instruction, video=video, audio=audio)
        where = getattr(self.tokenizer, "name_or_path", None) or "the policy"
        encoded = apply_chat(
            self.tokenizer, messages, where=where, add_generation_prompt=True, return_dict=True
        )
        return list(encoded["input_ids"])

    def question_inputs(self, instruction: str | None = None) -> dict[str, torch.Tensor]:
        """Empty: only the language model reads the question."""
        return {}

    def __call__(self, text: str | list[str], **kwargs: Any) -> BatchFeature:
        """Tokenizes text; clips go through `prepare_clip`."""
        return self.tokenizer(text, **kwargs)


def messages(
    prompt: Prompt, instruction: str | None = None, *, video: bool = True, audio: bool = True
) -> list[dict[str, str]]:
    """The turns before the answer about a clip.

    Args:
        prompt: the policy's.
        instruction: the text of the user turn; None for the prompt's own, without what belongs to one clip.
        video: whether the clip has frames.
        audio: whether the clip has sound.
    """
    text = prompt.ask() if instruction is None else instruction
    user = {"role": "user", "content": user_content(text, video=video, audio=audio)}
    return [user] if prompt.system is None else [{"role": "system", "content": prompt.system}, user]


__all__ = ["ClipProcessor", "chatml"]
