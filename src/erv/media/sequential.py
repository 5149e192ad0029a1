"""Decodes clips from the first picture to the last, where decord would return wrong ones by number.

These are the clips in which it can't seek (`erv.media.seeking`), and those whose edit list (`elst` of an mp4
or mov file) hides pictures, as written when a clip is cut without re-encoding.

A trimmed file holds more pictures than a player shows: those from the key frame up to the cut, which the
first visible ones refer to, and those after the end. FFmpeg marks them in the track's index, or omits them.
decord counts and returns marked ones too; PyAV drops them. The list that encoders write to shift B-frames
hides nothing, and such a clip is not affected.

A sound track has an edit list of its own, which PyAV follows: its samples begin where the track's edit
begins, and end with the last packet (1024 samples of AAC) that begins inside the edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from erv.media.containers import open_container
from erv.media.limits import MediaError, check_size, short_reason


def shown_pictures(path: Path, form: str, film: int, shown: int | None) -> Iterator[Any]:
    """Decodes the pictures that a player shows, in its order, in one pass.

    Args:
        path: of the file.
        form: of its header.
        film: number of its video track, of its header.
        shown: how many its edit list shows; None if unknown.

    Yields:
        PyAV's frames, each within the limits.

    Raises:
        MediaError: a picture can't be decoded or is too large, or their number is not `shown`.
    """
    import av

    count = 0
    try:
        with open_container(path, form) as container:
            video = container.streams[film]
            video.codec_context.thread_count = 1
            for frame in container.decode(video):
                check_size(frame.width, frame.height)
                count += 1
                yield frame
    except (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise MediaError(f"video can't be decoded: {short_reason(error, path)}") from error
    if shown is not None and count != shown:
        raise MediaError(f"video can't be decoded: {count} of the {shown} frames that its edit list shows")


def upright(frame: Any) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a frame, rotated as the file says, like decord.

    Pictures with 8 bits per channel equal decord's bit for bit; deeper ones may differ where the colour
    changes.
    """
    pixels = frame.reformat(format="rgb24", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))
