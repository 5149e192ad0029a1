"""From frames, sound and text to what Qwen2.5-Omni takes, without torchvision.

Deviations from transformers' own processor:
1. Frames come sampled and resized from the shards; here they are normalised and cut into patches, nothing
   else. That is all its video processor does with frames of an allowed size, and what it needs torchvision
   for is the rest.
2. Sound is a window of fixed length, padded with silence, so that every clip has the same number of tokens
   and one prompt serves all clips. The stock processor drops the padding.
3. Sound stands after the video and is not interleaved with it (`load_audio_from_video` off).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin, WhisperFeatureExtractor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from erv.errors import DataError
from erv.policies.common.clips import check_clip, waveform_of
from erv.prompts import AUDIO_PLACEHOLDER, INSTRUCTION, VIDEO_PLACEHOLDER, user_content

VIDEO_TOKEN, AUDIO_TOKEN, IMAGE_TOKEN = "<|VIDEO|>", "<|AUDIO|>", "<|IMAGE|>"
VIDEO_START, VIDEO_END = "<|vision_bos|>", "<|vision_eos|>"
AUDIO_START, AUDIO_END = "<|audio_bos|>", "<|audio_eos|>"
_SYSTEM = "You are a helpful assistant."  # what the released template says where nothing else is said


def chat_template(video_tokens: int, audio_tokens: int) -> str:
    """ChatML with the released system turn; each placeholder of a user turn becomes its tokens.

    Args:
        video_tokens: visual tokens of a clip.
        audio_tokens: tokens of the window of sound.
    """
    video = f"'{VIDEO_START}' + '{VIDEO_TOKEN}' * {video_tokens} + '{VIDEO_END}'"
    audio = f"'{AUDIO_START}' + '{AUDIO_TOKEN}' * {audio_tokens} + '{AUDIO_END}'"
    return (
        "{%- for message in messages -%}"
        "{%- set content = message['content'] -%}"
        "{%- if loop.first and message['role'] != 'system' -%}"
        f"{{{{- '<|im_start|>system\\n{_SYSTEM}<|im_end|>\\n' -}}}}"
        "{%- endif -%}"
        "{%- if message['role'] == 'user' -%}"
        f"{{%- set content = content | replace('{VIDEO_PLACEHOLDER}', {video})"
        f" | replace('{AUDIO_PLACEHOLDER}', {audio}) -%}}"
        "{%- endif -%}"
        "{{- '<|im_start|>' + message['role'] + '\\n' + content + '<|im_end|>\\n' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
    )


class QwenOmniProcessor(ProcessorMixin):
    """Whisper's log-mel, the patches of the vision tower and the language model's tokenizer.

    Args:
        feature_extractor: log-mel of a fixed window.
        tokenizer: a fast tokenizer; its chat template expands the placeholders, so that it serves on its own.
        image_size: side of a frame in pixels.
        num_frames: frames per clip.
        patch_size: side of a patch in pixels.
        temporal_patch_size: frames in a patch.
        merge_size: patches per side that become one token.
        image_mean: mean that a colour channel (0..1) is freed of.
        image_std: what it is then divided by.
        chat_template: taken by the base class; the template lives in the tokenizer.
    """

    def __init__(
        self,
        feature_extractor: WhisperFeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        image_size: int = 336,
        num_frames: int = 8,
        patch_size: int = 14,
        temporal_patch_size: int = 2,
        merge_size: int = 2,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.image_size = image_size
        self.num_frames = num_frames
        self.patch_size = patch_size
        self.temporal_patch_size = temporal_patch_size
        self.merge_size = merge_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def prepare_clip(
        self, frames: np.ndarray, audio: np.ndarray, sample_rate: int
    ) -> dict[str, torch.Tensor]:
        """Cuts the frames of a clip into patches and makes the log-mel of its sound.

        Args:
            frames: uint8 RGB [T, S, S, 3].
            audio: int16 mono [n]; longer than the window is cut, shorter is padded with silence. An empty
                array (a clip without sound) gives the log-mel of silence: leave `<audio>` out of its prompt.
            sample_rate: Hz, that of the feature extractor.

        Returns:
            `pixel_values_videos` float32 [patches, 3 * time * side * side], in the order of the vision tower:
            patches that become one token are neighbours; `input_features` float32 [mels, steps].

        Raises:
            DataError: shape, type or rate are not what this policy takes.
        """
        rate = self.feature_extractor.sampling_rate
        check_clip(
            frames, audio, sample_rate, num_frames=self.num_frames, image_size=self.image_size, rate=rate
        )
        features = self.feature_extractor(waveform_of(audio), sampling_rate=rate, return_tensors="np")
        return {
            "pixel_values_videos": self._patches(torch.from_numpy(frames.astype(np.float32))),
            "input_features": torch.from_numpy(features["input_features"][0]),
        }

    def _patches(self, frames: torch.Tensor) -> torch.Tensor:
        pixels = (frames / 255.0 - torch.tensor(self.image_mean)) / torch.tensor(self.image_std)
        time, merge, side = self.temporal_patch_size, self.merge_size, self.patch_size
        cells = self.image_size // (side * merge)
        cut = pixels.reshape(self.num_frames // time, time, cells, merge, side, cells, merge, side, 3)
        # From (grid, time, row, merged row, y, column, merged column, x, colour): the tower wants rows,
        # columns and what is merged first, and colour before time within a patch.
        return cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 3 * time * side * side).contiguous()

    def build_messages(
        self, instruction: str = INSTRUCTION, *, video: bool = True, audio: bool = True
    ) -> list[dict[str, str]]:
        """The user turn of a clip, for the tokenizer's chat template.

        Raises:
            DataError: neither frames nor sound.
        """
        if not (video or audio):
            raise DataError(
                "a prompt without frames and sound was asked for; this policy is trained on clips alone:"
                " give it at least one of them"
            )
        return [{"role": "user", "content": user_content(instruction, video=video, audio=audio)}]

    def prompt_ids(
        self, instruction: str = INSTRUCTION, *, video: bool = True, audio: bool = True
    ) -> list[int]:
        """Token ids of the prompt, placeholders expanded, up to where the completion begins.

        Raises:
            DataError: neither frames nor sound.
        """
        messages = self.build_messages(instruction, video=video, audio=audio)
        encoded = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def question_inputs(self, instruction: str = INSTRUCTION) -> dict[str, torch.Tensor]:
        """Nothing: the language model alone reads the question."""
        return {}

    def __call__(self, text: str | list[str], **kwargs: Any) -> BatchFeature:
        """Tokenizes text; clips go through `prepare_clip`."""
        return self.tokenizer(text, **kwargs)


__all__ = ["QwenOmniProcessor", "chat_template"]
