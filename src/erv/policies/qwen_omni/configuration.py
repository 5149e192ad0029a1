"""Configuration of Qwen2.5-Omni as a policy: the thinker's own, and the fixed geometry of a clip."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import Qwen2_5OmniThinkerConfig

from erv.errors import TrainingError


@strict
class QwenOmniConfig(Qwen2_5OmniThinkerConfig):
    """The thinker's configuration, and the number of tokens per clip.

    Every clip has the same number of frames of the same size and a sound window of the same length, so that
    one prompt serves all clips.

    Args:
        num_frames: frames per clip; a multiple of the temporal patch (2).
        image_size: side of a frame in pixels; a multiple of the patch side times the merge (28).
        mel_steps: log-mel steps of the sound window.
        seconds_per_grid: the time between one pair of frames and the next, in the temporal positions.
            transformers' processor assumes 1.0 for frames without timestamps.
        vision_start_token_id: id of the token that opens a video.

    Raises:
        TrainingError: `num_frames` or `image_size` is not such a multiple.
    """

    model_type = "qwen_omni"
    # TRL's loader needs it when a class is not one of transformers' own; nothing is loaded through it.
    auto_map: ClassVar[dict[str, str]] = {}

    num_frames: int = 8
    image_size: int = 336
    mel_steps: int = 1000
    seconds_per_grid: float = 1.0
    vision_start_token_id: int = 151652

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        vision = self.vision_config
        side = vision.patch_size * vision.spatial_merge_size
        for name, value, unit in (
            ("num_frames", self.num_frames, vision.temporal_patch_size),
            ("image_size", self.image_size, side),
        ):
            if value < 1 or value % unit:
                raise TrainingError(
                    f"{name} is {value}, but Qwen2.5-Omni takes multiples of {unit};"
                    " choose another value and set extract.frames and extract.size to match"
                )

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches of a clip before merging: in time, rows and columns."""
        side = self.image_size // self.vision_config.patch_size
        return self.num_frames // self.vision_config.temporal_patch_size, side, side

    @property
    def merged_side(self) -> int:
        """Visual tokens in a row of a frame."""
        side: int = self.grid[1] // self.vision_config.spatial_merge_size
        return side

    @property
    def video_tokens(self) -> int:
        """Visual tokens per clip."""
        return self.grid[0] * self.merged_side**2

    @property
    def audio_tokens(self) -> int:
        """Tokens of the sound window: a convolution halves the log-mel steps, and pooling halves the rest."""
        convolved = (self.mel_steps - 1) // 2 + 1
        return (convolved - 2) // 2 + 1

    @property
    def grid_step(self) -> int:
        """Temporal positions from one pair of frames to the next; see `seconds_per_grid`."""
        return int(self.seconds_per_grid * self.position_id_per_seconds)


__all__ = ["QwenOmniConfig"]
