"""Turns frames, sound and text into Qwen2.5-Omni's inputs, without torchvision.

Deviations from transformers' own processor:
1. Frames come sampled and resized from the shards; here they are only normalised and cut into patches. The
   stock video processor does no more with frames of an allowed size; it needs torchvision for the other
   steps.
2. Sound is a window of fixed length, padded with silence, so that every clip has the same number of tokens
   and one prompt serves all clips. The stock processor drops the padding.
3. Sound comes after the video and is not interleaved with it (`load_audio_from_video` off).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, WhisperFeatureExtractor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from erv.errors import DataError
from erv.policies.common.processing import ClipProcessor, chatml

VIDEO_TOKEN, AUDIO_TOKEN, IMAGE_TOKEN = "<|VIDEO|>", "<|AUDIO|>", "<|IMAGE|>"
VIDEO_START, VIDEO_END = "<|vision_bos|>", "<|vision_eos|>"
AUDIO_START, AUDIO_END = "<|audio_bos|>", "<|audio_eos|>"
_SYSTEM = "You are a helpful assistant."  # the default of the released template


def chat_template(video_tokens: int, audio_tokens: int) -> str:
    """ChatML with the released system turn; each placeholder of a user turn becomes its tokens.

    Args:
        video_tokens: visual tokens per clip.
        audio_tokens: tokens of the sound window.
    """
    video = f"'{VIDEO_START}' + '{VIDEO_TOKEN}' * {video_tokens} + '{VIDEO_END}'"
    audio = f"'{AUDIO_START}' + '{AUDIO_TOKEN}' * {audio_tokens} + '{AUDIO_END}'"
    return chatml(video, audio, _SYSTEM)


class QwenOmniProcessor(ClipProcessor):
    """Whisper's log-mel, the patches of the vision tower and the language model's tokenizer.

    Args:
        feature_extractor: computes the log-mel of a fixed window.
        tokenizer: a fast tokenizer; its chat template expands the placeholders, so it also works on its own.
        image_size: side of a frame in pixels.
        num_frames: frames per clip.
        patch_size: side of a patch in pixels.
        temporal_patch_size: frames in a patch.
        merge_size: patches per side that become one token.
        image_mean: mean to subtract from each colour channel (0..1).
        image_std: standard deviation to then divide each channel by.
        chat_template: passed to the base class; the template itself is in the tokenizer.
        instruction: see `ClipProcessor`.
        system: see `ClipProcessor`.
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
        instruction: str | None = None,
        system: str | None = None,
    ) -> None:
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)
        self.instruction, self.system = instruction, system
        self.image_size = image_size
        self.num_frames = num_frames
        self.patch_size = patch_size
        self.temporal_patch_size = temporal_patch_size
        self.merge_size = merge_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def prepare_frames(self, frames: np.ndarray) -> dict[str, torch.Tensor]:
        """`pixel_values_videos` float32 [patches, 3 * time * side * side], in the vision tower's order.

        Patches that are merged into one token are neighbours.
        """
        pixels = torch.from_numpy(frames.astype(np.float32))
        pixels = (pixels / 255.0 - torch.tensor(self.image_mean)) / torch.tensor(self.image_std)
        time, merge, side = self.temporal_patch_size, self.merge_size, self.patch_size
        cells = self.image_size // (side * merge)
        cut = pixels.reshape(self.num_frames // time, time, cells, merge, side, cells, merge, side, 3)
        # From (grid, time, row, merged row, y, column, merged column, x, colour): the tower expects rows,
        # columns and merged patches first, and colour before time within a patch.
        patches = cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, 3 * time * side * side)
        return {"pixel_values_videos": patches.contiguous()}

    def build_messages(
        self, instruction: str | None = None, *, video: bool = True, audio: bool = True
    ) -> list[dict[str, str]]:
        """The turns before the answer about a clip, for the tokenizer's chat template.

        Raises:
            DataError: the prompt would have neither frames nor sound.
        """
        if not (video or audio):
            raise DataError(
                "a prompt needs frames or sound, but has neither; this policy is trained only on clips:"
                " give at least one of them"
            )
        return super().build_messages(instruction, video=video, audio=audio)


__all__ = ["QwenOmniProcessor", "chat_template"]
