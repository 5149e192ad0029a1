"""Turns frames, sound and text into HumanOmni's inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor

from erv.policies.common.processing import ClipProcessor, chatml
from erv.policies.humanomni.official_prompts import OfficialPrompt, Phase, official_prompt
from erv.policies.humanomni.splicing import AUDIO_ID, VIDEO_ID
from erv.prompts import AUDIO_PLACEHOLDER, INSTRUCTION, VIDEO_PLACEHOLDER

_HALF_RANGE = 127.5  # SigLIP normalises with mean = std = 0.5


def chat_template(video_tokens: int, audio_tokens: int, *, wrap: bool) -> str:
    """ChatML that repeats each placeholder of a user turn once per token it stands for.

    Args:
        video_tokens: visual tokens per clip.
        audio_tokens: audio tokens per clip.
        wrap: whether to enclose them in `<vi_start>…<vi_end>` and `<au_start>…<au_end>`, as the released
            checkpoints do. Those tags are ordinary text, not added tokens.
    """
    video, audio = f"'{VIDEO_PLACEHOLDER}' * {video_tokens}", f"'{AUDIO_PLACEHOLDER}' * {audio_tokens}"
    if wrap:
        video, audio = f"'<vi_start>' + {video} + '<vi_end>'", f"'<au_start>' + {audio} + '<au_end>'"
    return chatml(video, audio)


class HumanOmniProcessor(ClipProcessor):
    """Whisper's log-mel, SigLIP's normalisation, and the tokenizers of the language model and the gate.

    The geometry of frames is fixed when shards are written; here they are only normalised.

    Args:
        feature_extractor: computes the log-mel of a fixed window.
        tokenizer: a fast tokenizer; its chat template expands the placeholders, so it also works on its own.
        gate_tokenizer: tokenizer of the gate encoder (BERT).
        image_size: side of a frame in pixels.
        num_frames: frames per clip.
        chat_template: passed to the base class; the template itself is in the tokenizer.
        official_template: the chat template of a released checkpoint, for its own prompts; None for Qwen2's.
        instruction: see `ClipProcessor`.
        system: see `ClipProcessor`.
    """

    def __init__(
        self,
        feature_extractor: WhisperFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        gate_tokenizer: PreTrainedTokenizerBase,
        image_size: int = 224,
        num_frames: int = 8,
        chat_template: str | None = None,
        official_template: str | None = None,
        instruction: str | None = None,
        system: str | None = None,
    ) -> None:
        super().__init__(feature_extractor, tokenizer, gate_tokenizer, chat_template=chat_template)
        self.official_template = official_template
        self.instruction, self.system = instruction, system
        self.image_size = image_size
        self.num_frames = num_frames

    def prepare_frames(self, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """`pixel_values` float32 [T, 3, S, S] in -1..1."""
        pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float()
        return {"pixel_values": pixels / _HALF_RANGE - 1.0}

    def official_prompt(
        self, instruction: str | None = None, phase: Phase = "inference", **options: Any
    ) -> OfficialPrompt:
        """The prompt that the released code writes in a phase; see `official_prompts.official_prompt`.

        Its `input_ids` hold one negative id per clip, which the model accepts.
        """
        options = {"template": self.official_template, **options}
        return official_prompt(self.tokenizer, phase, instruction, **options)

    def prompt_ids(
        self,
        instruction: str | None = None,
        *,
        video: bool = True,
        audio: bool = True,
        official: Phase | None = None,
    ) -> list[int]:
        """Token ids of the prompt up to the completion, with expanded placeholders.

        Args:
            instruction: the question; None for the policy's own.
            video: whether the clip has frames.
            audio: whether the clip has sound.
            official: None for our own prompt; a phase for the released prompt of that phase. In GRPO the
                default instruction becomes the question with the request for tags on a line of its own, as
                R1-Omni writes it. Any other instruction is used unchanged.
        """
        if official is not None:
            asked = self.prompt.ask() if instruction is None else instruction
            return self.expand(self._official(asked, official, video, audio).input_ids)
        return super().prompt_ids(instruction, video=video, audio=audio)

    def _official(self, instruction: str, phase: Phase, video: bool, audio: bool) -> OfficialPrompt:
        """The released prompt for the arguments of `prompt_ids` and `gate_inputs`."""
        default = phase == "grpo" and instruction == INSTRUCTION
        question = None if default else instruction
        return self.official_prompt(question, phase, video=video, audio=audio, r1_omni=default)

    def expand(self, ids: list[int]) -> list[int]:
        """Replaces negative placeholders, one per clip, by placeholders of the vocabulary, one per token."""
        known = self.prompt_ids()
        video, audio = self.tokenizer.convert_tokens_to_ids([VIDEO_PLACEHOLDER, AUDIO_PLACEHOLDER])
        runs = {VIDEO_ID: [video] * known.count(video), AUDIO_ID: [audio] * known.count(audio)}
        return [token for each in ids for token in runs.get(each, [each])]

    def gate_inputs(
        self,
        rows: int = 1,
        instruction: str | None = None,
        *,
        video: bool = True,
        audio: bool = True,
        official: Phase | None = None,
    ) -> dict[str, torch.Tensor]:
        """The bare instruction for the gate encoder.

        Args:
            rows: how often to repeat it.
            instruction: the question.
            video: as for `prompt_ids`; in the released cold start the gate reads the tags too.
            audio: as for `prompt_ids`.
            official: None for the instruction alone, which training and inference share; a phase for what the
                released code passes to the gate in that phase.

        Returns:
            `gate_input_ids` and `gate_attention_mask`, long [rows, L]; one row may serve all clips.
        """
        instruction = self.prompt.ask() if instruction is None else instruction
        if official is not None:
            instruction = self._official(instruction, official, video, audio).gate_text
        encoded = self.gate_tokenizer(instruction, truncation=True, return_tensors="pt")
        return {
            "gate_input_ids": encoded["input_ids"].expand(rows, -1).contiguous(),
            "gate_attention_mask": encoded["attention_mask"].expand(rows, -1).contiguous(),
        }

    def question_inputs(self, instruction: str | None = None) -> dict[str, torch.Tensor]:
        """The instruction for the gate encoder, one row for all clips."""
        return self.gate_inputs(1, instruction)

    def to_dict(self) -> dict[str, Any]:
        """The content of `processor_config.json`; holds a released template only if there is one."""
        content: dict[str, Any] = super().to_dict()
        if self.official_template is None:
            content.pop("official_template", None)
        return content


__all__ = ["HumanOmniProcessor", "chat_template"]
