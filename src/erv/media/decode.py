"""Media: decodes a clip to frames and audio as the policy takes them.

The rules are HumanOmni's: frames spread evenly over the clip, padded (the released training code) or
stretched (its inference code) to the square of the vision tower with PIL's bicubic filter, audio as 16 kHz
mono. A faster filter is an option (`erv.media.resizing`). What a player shows and that code doesn't is
followed here: times of pictures at a variable rate (`erv.media.timing`), sound that starts late
(`erv.media.sound`), pixels that are not square. Unlike there, a clip without sound is marked as such and
never becomes seconds of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from erv.media.answers import AnswerError, Form, array_of
from erv.media.frames import list_frames, read_frame
from erv.media.header import Header, read_header, shown_size
from erv.media.limits import MAX_SECONDS, MediaError, check_size, short_reason
from erv.media.resizing import Resize, load_torch, resized
from erv.media.seeking import Survey, survey
from erv.media.sequential import shown_pictures, upright
from erv.media.skipping import taken_pictures
from erv.media.sound import read_sound
from erv.media.timing import Times, chosen_frames, frame_indices

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DECODED",
    "DecodeRule",
    "DecodeTask",
    "Decoded",
    "Geometry",
    "MediaError",
    "decode",
    "decode_item",
    "decode_task",
    "frame_indices",
    "loader",
    "to_square",
]

Geometry = Literal["stretch", "pad"]
ShortFolders = Literal["repeat", "black"]
_BATCH_BYTES = 64 * 2**20
_UNMEASURED = "Failed to measure duration/frame-count"  # decord's words
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
        resize: the filter, see `erv.media.resizing`.
    """

    frames: int
    size: int
    geometry: Geometry
    sample_rate: int
    short_folders: ShortFolders = "repeat"
    resize: Resize = "pillow"


@dataclass(frozen=True)
class Decoded:
    """A decoded clip: uint8 RGB [T, size, size, 3] and int16 mono samples, None without a sound track."""

    frames: np.ndarray
    audio: np.ndarray | None


@dataclass(frozen=True)
class DecodeTask:
    """A clip to decode, as a confined worker takes it (`erv.media.handed`).

    Attributes:
        rule: how.
        files: the video, or the images to decode.
        names: of the files, for messages.
        images: how many images the folder has; None for a video.
        fault: why the folder can't be used, if it can't.
    """

    rule: DecodeRule
    files: tuple[Path, ...]
    names: tuple[str, ...] = ()
    images: int | None = None
    fault: str | None = None


def to_square(frames: np.ndarray, size: int, geometry: Geometry, resize: Resize = "pillow") -> np.ndarray:
    """Resizes uint8 RGB [T, H, W, 3] to [T, size, size, 3] with a bicubic filter.

    `pad` first centres a frame on a square of grey 127, `stretch` distorts its aspect ratio.
    """
    from PIL import Image

    return np.stack([_square(Image.fromarray(pixels), size, geometry, resize) for pixels in frames])


def _square(image: Image, size: int, geometry: Geometry, resize: Resize, ratio: float = 1.0) -> np.ndarray:
    """Resizes rows first, as Pillow did before it chose the order by cost: pixels differ by up to 2.

    A `ratio` (width of a pixel over its height) other than 1 matters only if the shape of the picture does.
    """
    from PIL import Image

    if geometry == "pad" and ratio != 1.0:
        image = resized(image, *shown_size(*image.size, ratio), resize)
    width, height = image.size
    if geometry == "pad" and height > width:
        canvas = Image.new("RGB", (height, height), _PAD_COLOR)
        canvas.paste(image, ((height - width) // 2, 0))
        image = canvas
    if resize == "uint8" and not (geometry == "pad" and width > height):
        return np.asarray(resized(image, size, size, resize))  # rows first, too
    wide = resized(image, size, height, resize)
    if geometry == "pad" and width > height:
        # Grey rows stay grey when resized, so adding them now gives the same pixels for less work.
        canvas = Image.new("RGB", (size, width), _PAD_COLOR)
        canvas.paste(wide, (0, (width - height) // 2))
        wide = canvas
    return np.asarray(resized(wide, size, size, resize))


def decode(path: Path, rule: DecodeRule) -> Decoded:
    """Decodes a video file with decord and PyAV, or a folder of frames with PIL.

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
    return decode_item(decode_task(path, rule))


def decode_task(path: Path, rule: DecodeRule) -> DecodeTask:
    """What `decode_item` needs of a video file or a folder of frames; only lists the folder."""
    if not path.is_dir():
        return DecodeTask(rule, (path,), (path.name,))
    try:
        paths = list_frames(path)
    except MediaError as error:
        return DecodeTask(rule, (), fault=str(error))
    files = tuple(paths[index] for index in sorted(set(_images(len(paths), rule))))
    return DecodeTask(rule, files, tuple(file.name for file in files), len(paths))


def decode_item(task: DecodeTask) -> Decoded:
    """As `decode`; worker processes pass a single value and import only this module."""
    if task.fault is not None:
        raise MediaError(task.fault)
    if task.images is not None:
        return Decoded(np.stack(list(_folder_frames(task, task.images))), None)
    (path,) = task.files
    header = read_header(path)
    found = survey(path, header, ask_ratio=task.rule.geometry == "pad")
    if found.ratio is not None:
        header = replace(header, ratio=found.ratio)
        check_size(*shown_size(header.width, header.height, found.ratio))
    frames = _video_frames(path, task.rule, header, found)
    if header.voice is None:
        return Decoded(frames, None)
    return Decoded(frames, read_sound(path, header.form, header.voice, task.rule.sample_rate, found.start))


def _decoded_of(task: DecodeTask, value: Any) -> Decoded:
    """A worker's answer as a clip; raises AnswerError if it is not one as the rule asks for."""
    if not isinstance(value, dict) or value.keys() != {"frames", "audio"}:
        raise AnswerError("no clip")
    rule, audio = task.rule, value["audio"]
    frames = array_of(value["frames"], np.uint8, 4)
    if frames.shape != (rule.frames, rule.size, rule.size, 3):
        raise AnswerError(f"frames of shape {frames.shape}")
    if audio is not None and not 0 < len(array_of(audio, np.int16, 1)) <= _most_samples(rule):
        raise AnswerError(f"{len(audio)} samples of sound")
    return Decoded(frames, audio)


def _most_samples(rule: DecodeRule) -> int:
    """Samples of the longest sound that starts as late as may be."""
    return round(2 * MAX_SECONDS * rule.sample_rate)


def _most_bytes(task: DecodeTask) -> int:
    rule = task.rule
    return rule.frames * rule.size * rule.size * 3 + 2 * _most_samples(rule)


# What `decode_item` may answer.
DECODED: Form[DecodeTask, Decoded] = Form(_decoded_of, _most_bytes)


def loader(rule: DecodeRule) -> Callable[[], None]:
    """What a worker calls before its first clip, as a function that can be pickled."""
    return load_decoders if rule.resize == "pillow" else load_decoders_and_torch


def load_decoders_and_torch() -> None:
    """As `load_decoders`, with torch for the resizing, which takes seconds."""
    load_decoders()
    load_torch()


def load_decoders() -> None:
    """Imports what `decode` needs, before any clip's time limit starts."""
    import av.subtitles.stream  # noqa: F401  # PyAV imports it when it opens the first file
    import decord  # noqa: F401
    import numpy.ma  # noqa: F401  # `np.unique` imports it
    import PIL.Image

    PIL.Image.preinit()


def _images(count: int, rule: DecodeRule) -> list[int]:
    """Indices of the images to take of a folder; black pictures follow if there are too few."""
    if rule.short_folders == "black" and count < rule.frames:
        return list(range(count))
    return chosen_frames(count, None, rule.frames)


def _folder_frames(task: DecodeTask, count: int) -> Iterator[np.ndarray]:
    from PIL import Image

    rule, wanted = task.rule, _images(count, task.rule)
    files = dict(zip(sorted(set(wanted)), zip(task.files, task.names, strict=True), strict=True))
    last, square, shape = -1, np.empty(0), (0, 0)
    for index in wanted:
        if index != last:
            image = read_frame(*files[index])
            last, square, shape = index, _square(image, rule.size, rule.geometry, rule.resize), image.size
        yield square
    for _ in range(rule.frames - len(wanted)):
        # The released code creates each with the previous one's width and height swapped, so padding puts
        # grey at the sides of one and above and below the next.
        shape = (shape[1], shape[0])
        yield _square(Image.new("RGB", shape), rule.size, rule.geometry, rule.resize)


def _video_frames(path: Path, rule: DecodeRule, header: Header, found: Survey) -> np.ndarray:
    """uint8 [T, size, size, 3]."""
    if header.shown is not None:
        return _frames_in_order(path, rule, header, header.shown, found.times)
    if found.packets < header.frames:
        raise MediaError(f"truncated: {found.packets} of {header.frames} frames")
    if found.seekable and (rule.geometry == "stretch" or header.ratio in (None, 1.0)):
        taken = _frames_by_parts(path, rule, header, found)
        if taken is None:
            taken = _frames_by_number(path, rule, header, found.times)
        if taken is not None:
            return taken
    return _frames_in_order(path, rule, header, found.packets, found.times)


def _frames_by_parts(path: Path, rule: DecodeRule, header: Header, found: Survey) -> np.ndarray | None:
    """uint8 [T, size, size, 3] of a video in which pictures can be skipped; None if that fails."""
    from PIL import Image

    if found.order is None:
        return None

    def square(frame: Any) -> np.ndarray:
        return _square(Image.fromarray(upright(frame)), rule.size, rule.geometry, rule.resize)

    indices = chosen_frames(found.packets, found.times, rule.frames)
    size = (header.width, header.height)
    squares = taken_pictures(path, header, found.order, set(indices), size, square)
    return None if squares is None else np.stack([squares[index] for index in indices])


def _frames_by_number(path: Path, rule: DecodeRule, header: Header, times: Times | None) -> np.ndarray | None:
    """uint8 [T, size, size, 3] of a video in which decord can seek; None if it can't tell how long that is.

    So it is with recordings of a browser that states no rate, if their pictures come irregularly.
    """
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
        indices = chosen_frames(len(video), times, rule.frames)
        wanted = sorted(set(indices))
        # Reading all at once is 10% faster than one by one, but holds all of them in memory.
        together = max(1, _BATCH_BYTES // (header.width * header.height * 3))
        for start in range(0, len(wanted), together):
            part = wanted[start : start + together]
            for index, pixels in zip(part, np.from_dlpack(_Borrowed(video.get_batch(part))), strict=True):
                image = Image.frombuffer("RGB", pixels.shape[1::-1], pixels, "raw", "RGB", 0, 1)
                squares[index] = _square(image, rule.size, rule.geometry, rule.resize)
    except (RuntimeError, ValueError, IndexError, OSError, decord.DECORDError) as error:
        if _UNMEASURED in str(error):
            return None
        raise MediaError(f"video can't be decoded: {short_reason(error, path)}") from error
    return np.stack([squares[index] for index in indices])


def _frames_in_order(
    path: Path, rule: DecodeRule, header: Header, expected: int, times: Times | None
) -> np.ndarray:
    """uint8 [T, size, size, 3] of a video that is decoded from the start.

    Takes one pass if it has as many pictures as expected, otherwise two.

    Args:
        path: of the file.
        rule: which frames, and their size.
        header: of the file.
        expected: number of pictures.
        times: when packets say that they are shown.
    """
    squares, found = _squares(path, rule, header, expected, times)
    count = len(found)
    if not count:
        raise MediaError("video track has no frames")
    if count != expected:
        times = Times.of(found, 0.0)
        squares, _ = _squares(path, rule, header, count, times)
    return np.stack([squares[index] for index in chosen_frames(count, times, rule.frames)])


def _squares(
    path: Path, rule: DecodeRule, header: Header, expected: int, times: Times | None
) -> tuple[dict[int, np.ndarray], list[float | None]]:
    """The frames chosen out of `expected`, by number, and the times of all frames there really are."""
    from PIL import Image

    wanted = set(chosen_frames(expected, times, rule.frames)) if expected else set()
    squares: dict[int, np.ndarray] = {}
    found: list[float | None] = []
    for frame in shown_pictures(path, header.form, header.film, header.shown):
        if len(found) in wanted:
            turned = round(frame.rotation / 90) % 2
            ratio = header.ratio or 1.0
            image = Image.fromarray(upright(frame))
            ratio = 1 / ratio if turned else ratio
            squares[len(found)] = _square(image, rule.size, rule.geometry, rule.resize, ratio)
        found.append(frame.time)
    return squares, found


class _Borrowed:
    """A decord array as numpy, without a copy (`asnumpy` makes one)."""

    def __init__(self, array: Any) -> None:
        self._capsule = array.to_dlpack()

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # kDLCPU
