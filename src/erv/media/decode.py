"""Media: decodes a clip to frames and audio as the policy takes them.

The rules are HumanOmni's: frames spread evenly over the clip, padded (the released training code) or
stretched (its inference code) to the square of the vision tower with PIL's bicubic filter, audio as 16 kHz
mono. Unlike there, a clip without sound is marked as such and never becomes seconds of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from erv.media.frames import list_frames, read_frame
from erv.media.limits import Header, MediaError, read_header, short_reason
from erv.media.seeking import survey
from erv.media.sequential import shown_pictures, upright

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DecodeRule",
    "Decoded",
    "Geometry",
    "MediaError",
    "decode",
    "decode_item",
    "frame_indices",
    "to_square",
]

Geometry = Literal["stretch", "pad"]
ShortFolders = Literal["repeat", "black"]
_BATCH_BYTES = 64 * 2**20
_PAD_COLOR = (127, 127, 127)  # int(0.5 * 255), the mean of the image processor


@dataclass(frozen=True)
class DecodeRule:
    """How clips become arrays.

    Attributes:
        frames: per clip.
        size: of the square, in pixels.
        geometry: how a picture is made square.
        sample_rate: in Hz.
        short_folders: what to do with a folder of fewer images than `frames`: `repeat` takes some twice, as
            for a video; `black` appends black pictures, as the released code does.
    """

    frames: int
    size: int
    geometry: Geometry
    sample_rate: int
    short_folders: ShortFolders = "repeat"


@dataclass(frozen=True)
class Decoded:
    """A decoded clip: uint8 RGB [T, size, size, 3] and int16 mono samples, None without a sound track."""

    frames: np.ndarray
    audio: np.ndarray | None


def frame_indices(count: int, wanted: int) -> np.ndarray:
    """Indices of the frames to take: the middles of `wanted` equal parts, with duplicates in short files.

    `round(((count - 1) / wanted) * (i + 0.5) + 1e-6)`, half to even, as the released code computes it.

    Args:
        count: frames in the file, at least 1.
        wanted: frames per clip.

    Returns:
        int64 [wanted], not decreasing.
    """
    return np.round((count - 1) / wanted * (np.arange(wanted) + 0.5) + 1e-6).astype(np.int64)


def to_square(frames: np.ndarray, size: int, geometry: Geometry) -> np.ndarray:
    """Resizes uint8 RGB [T, H, W, 3] to [T, size, size, 3] with PIL's bicubic filter.

    `pad` first centres a frame on a square of grey 127, `stretch` distorts its aspect ratio.
    """
    from PIL import Image

    return np.stack([_square(Image.fromarray(pixels), size, geometry) for pixels in frames])


def _square(image: Image, size: int, geometry: Geometry) -> np.ndarray:
    """Resizes rows first, as Pillow did before it chose the order by cost: pixels differ by up to 2."""
    from PIL import Image

    width, height = image.size
    if geometry == "pad" and height > width:
        canvas = Image.new("RGB", (height, height), _PAD_COLOR)
        canvas.paste(image, ((height - width) // 2, 0))
        image = canvas
    wide = image.resize((size, height), Image.Resampling.BICUBIC)
    if geometry == "pad" and width > height:
        # Grey rows stay grey when resized, so adding them now gives the same pixels for less work.
        canvas = Image.new("RGB", (size, width), _PAD_COLOR)
        canvas.paste(wide, (0, (width - height) // 2))
        wide = canvas
    return np.asarray(wide.resize((size, size), Image.Resampling.BICUBIC))


def decode(path: Path, rule: DecodeRule) -> Decoded:
    """Decodes a video file with decord, or a folder of frames with PIL.

    A video in which decord can't seek to pictures by number (`erv.media.seeking`) is decoded from the start
    (`erv.media.sequential`). If an edit list hides pictures, only those that a player shows are taken. Sound
    with its own edit list starts where the edit starts, and ends with the packet in which the edit ends (1024
    samples of AAC).

    Returns:
        The clip; a folder has no sound.

    Raises:
        MediaError: the clip can't be read, has no frame, exceeds `erv.media.limits`, was cut off, or its
            sound holds values that are not numbers. The message is the same in every run.
    """
    if path.is_dir():
        return Decoded(np.stack(list(_folder_frames(path, rule))), None)
    header = read_header(path)
    frames = _video_frames(path, rule, header)
    return Decoded(frames, _audio(path, rule.sample_rate) if header.has_audio else None)


def decode_item(item: tuple[Path, DecodeRule]) -> Decoded:
    """`decode` for worker processes, which pass a single value and import only this module."""
    return decode(*item)


def load_decoders() -> None:
    """Imports what `decode` needs, before any clip's time limit starts."""
    import av  # noqa: F401
    import decord  # noqa: F401
    import PIL.Image

    import erv.sources.frame_folders  # noqa: F401

    PIL.Image.preinit()


def _folder_frames(folder: Path, rule: DecodeRule) -> Iterator[np.ndarray]:
    from PIL import Image

    paths = list_frames(folder)
    black = rule.frames - len(paths) if rule.short_folders == "black" else 0
    wanted = range(len(paths)) if black > 0 else frame_indices(len(paths), rule.frames).tolist()
    last, square, shape = -1, np.empty(0), (0, 0)
    for index in wanted:
        if index != last:
            image = read_frame(paths[index])
            last, square, shape = index, _square(image, rule.size, rule.geometry), image.size
        yield square
    for _ in range(black):
        # The released code creates each with the previous one's width and height swapped, so padding puts
        # grey at the sides of one and above and below the next.
        shape = (shape[1], shape[0])
        yield _square(Image.new("RGB", shape), rule.size, rule.geometry)


def _video_frames(path: Path, rule: DecodeRule, header: Header) -> np.ndarray:
    """uint8 [T, size, size, 3]."""
    if header.shown is not None:
        return _frames_in_order(path, rule, header.shown, header.shown)
    found = survey(path, header.form)
    if found.seekable:
        return _frames_by_number(path, rule, header)
    if found.packets < header.frames:
        raise MediaError(f"truncated: {found.packets} of {header.frames} frames")
    return _frames_in_order(path, rule, found.packets)


def _frames_by_number(path: Path, rule: DecodeRule, header: Header) -> np.ndarray:
    """uint8 [T, size, size, 3] of a video in which decord can seek."""
    import decord
    from PIL import Image

    squares: dict[int, np.ndarray] = {}
    # With num_threads=0, FFmpeg starts a thread per core in every worker.
    try:
        video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        if not len(video):
            raise MediaError("video track has no frames")
        if len(video) < header.frames:
            raise MediaError(f"truncated: {len(video)} of {header.frames} frames")
        indices = frame_indices(len(video), rule.frames).tolist()
        wanted = sorted(set(indices))
        # Reading all at once is 10% faster than one by one, but holds all of them in memory.
        together = max(1, _BATCH_BYTES // (header.width * header.height * 3))
        for start in range(0, len(wanted), together):
            part = wanted[start : start + together]
            for index, pixels in zip(part, np.from_dlpack(_Borrowed(video.get_batch(part))), strict=True):
                image = Image.frombuffer("RGB", pixels.shape[1::-1], pixels, "raw", "RGB", 0, 1)
                squares[index] = _square(image, rule.size, rule.geometry)
    except (RuntimeError, ValueError, IndexError, OSError, decord.DECORDError) as error:
        raise MediaError(f"video can't be decoded: {short_reason(error, path)}") from error
    return np.stack([squares[index] for index in indices])


def _frames_in_order(path: Path, rule: DecodeRule, expected: int, shown: int | None = None) -> np.ndarray:
    """uint8 [T, size, size, 3] of a video that is decoded from the start.

    Takes one pass if it has as many pictures as expected, otherwise two.

    Args:
        path: of the file.
        rule: which frames, and their size.
        expected: number of pictures.
        shown: as `shown_pictures` takes it.
    """
    squares, count = _squares(path, rule, expected, shown)
    if count != expected:
        squares, _ = _squares(path, rule, count, shown)
    if not count:
        raise MediaError("video track has no frames")
    return np.stack([squares[index] for index in frame_indices(count, rule.frames).tolist()])


def _squares(
    path: Path, rule: DecodeRule, expected: int, shown: int | None
) -> tuple[dict[int, np.ndarray], int]:
    """The frames chosen out of `expected`, by number, and how many frames there really are."""
    from PIL import Image

    wanted = set(frame_indices(expected, rule.frames).tolist()) if expected else set()
    squares, count = {}, 0
    for frame in shown_pictures(path, shown):
        if count in wanted:
            squares[count] = _square(Image.fromarray(upright(frame)), rule.size, rule.geometry)
        count += 1
    return squares, count


class _Borrowed:
    """A decord array as numpy, without a copy (`asnumpy` makes one)."""

    def __init__(self, array: Any) -> None:
        self._capsule = array.to_dlpack()

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # kDLCPU


def whole_sound(wave: Any) -> np.ndarray:
    """All samples of decord's reader [channels * samples], equal to `wave[:]`.

    The public API first builds a list of all indices, which takes longer than decoding them (5 ms for 3 s);
    the array itself is behind an underscore.
    """
    array = getattr(wave, "_array", None)
    if isinstance(array, np.ndarray) and array.ndim == 2 and array.shape[1] >= wave.shape[1]:
        return array[:, : wave.shape[1]].reshape(-1)
    samples: np.ndarray = wave[:].asnumpy().reshape(-1)
    return samples


def _audio(path: Path, sample_rate: int) -> np.ndarray | None:
    """int16 mono samples, or None if the sound track is empty."""
    import decord

    try:
        wave = decord.AudioReader(str(path), ctx=decord.cpu(0), sample_rate=sample_rate, mono=True)
        samples = whole_sound(wave)
    except (RuntimeError, ValueError, IndexError, OSError, decord.DECORDError) as error:
        raise MediaError(f"sound can't be decoded: {short_reason(error, path)}") from error
    if not samples.size:
        return None
    if not np.isfinite(samples).all():
        raise MediaError("sound holds values that are not numbers")
    rounded: np.ndarray = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype(np.int16)
    return rounded
