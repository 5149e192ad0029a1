"""Probes clips: inspects their media at the cost of one pass over the sound and a few pictures.

`erv.validate.validate` judges the results; nothing else is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from erv.manifest import ClipRow
from erv.media.answers import Form, record_of
from erv.media.frames import list_frames, read_frame
from erv.media.limits import MediaError
from erv.media.workers import isolated
from erv.progress import meter, ticker
from erv.settings import ValidateSettings
from erv.sources import Lock, ObjectStore, fetch_all
from erv.validate.probes import LOOKS, THUMBNAIL, Probe, luma, spread
from erv.validate.video_probe import probe_video

__all__ = ["Probe", "probe", "probe_clips"]

logger = logging.getLogger(__name__)


def probe_clips(
    rows: Sequence[ClipRow],
    lock: Lock,
    store: ObjectStore | None,
    settings: ValidateSettings,
    *,
    workers: int,
) -> dict[str, Probe]:
    """Probes every clip in worker processes, which a broken file may kill.

    Args:
        rows: of one manifest.
        lock: of the source that they come from.
        store: for clips in an object store.
        settings: each clip's time and memory.
        workers: processes that look into clips.

    Returns:
        A probe per clip id, in the order of the rows.

    Raises:
        DataError: the manifest doesn't match the lock, or a local clip is gone.
        StorageError: a clip can't be fetched.
    """
    tasks = (_task(path, row.clip_id) for row, path in zip(rows, fetch_all(rows, lock, store), strict=True))
    probes = {}
    with meter(f"validate {rows[0].dataset if rows else ''}", len(rows), "clips", logger) as bar:
        tick = ticker(bar, "can't be decoded")
        for outcome in isolated(
            _probe_task,
            tasks,
            workers=workers,
            seconds=float(settings.clip_timeout_seconds),
            memory_mb=settings.clip_memory_mb,
            prepare=_load_prober,
            confined=True,
            form=_PROBED,
        ):
            found = outcome.result or Probe(fault=outcome.failure)
            probes[outcome.item.clip_id] = found
            tick(not found.decodable)
    return probes


@dataclass(frozen=True)
class _Task:
    """A clip to probe, as a confined worker takes it (`erv.media.handed`).

    Attributes:
        clip_id: which clip.
        files: the video, or the images to look at.
        names: of the files, for messages.
        images: how many images the folder has; None for a video.
        fault: why the folder can't be used, if it can't.
    """

    clip_id: str
    files: tuple[Path, ...]
    names: tuple[str, ...] = ()
    images: int | None = None
    fault: str | None = None


def _task(path: Path, clip_id: str = "") -> _Task:
    if not path.is_dir():
        return _Task(clip_id, (path,), (path.name,))
    try:
        frames = list_frames(path)
    except MediaError as error:
        return _Task(clip_id, (), fault=str(error))
    chosen = tuple(frames[index] for index in spread(range(len(frames)), LOOKS))
    return _Task(clip_id, chosen, tuple(file.name for file in chosen), len(frames))


# What `_probe_task` may answer: no arrays.
_PROBED: Form[_Task, Probe] = Form(lambda _, value: record_of(Probe, value), lambda _: 0)


def _load_prober() -> None:
    """Imports what `probe` needs, before any clip's time limit starts."""
    import av.subtitles.stream  # noqa: F401  # PyAV imports it when it opens the first file
    import PIL.Image

    PIL.Image.preinit()


def probe(path: Path) -> Probe:
    """Probes a video, or a frame folder if `path` is one. Never raises for bad content."""
    return _probe_task(_task(path))


def _probe_task(task: _Task) -> Probe:
    if task.fault is not None:
        return Probe(fault=task.fault)
    return probe_video(task.files[0]) if task.images is None else _probe_folder(task, task.images)


def _probe_folder(task: _Task, count: int) -> Probe:
    """Probes some images of a folder, including the first and the last."""
    from PIL import Image

    width = height = 0
    brightest: float | None = None
    fault = None
    try:
        for path, name in zip(task.files, task.names, strict=True):
            image = read_frame(path, name)
            width, height = image.size
            small = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
            brightest = max(brightest or 0.0, luma(np.asarray(small)))
    except MediaError as error:
        fault = str(error)
    except MemoryError:
        fault = "an image takes more memory than there is"
    return Probe(fault=fault, frames=count, width=width, height=height, brightness=brightest)
