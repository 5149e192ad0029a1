"""Decodes the clip of one request, whose sound may come in a file of its own."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from erv.answering.clips import CLIP_MEMORY_MB, ClipError
from erv.answering.media import CLIP_SECONDS, SEEN, Seen, checked, see
from erv.answering.requests import Request
from erv.media.containers import container_of, open_container
from erv.media.decode import Decoded, DecodeRule, DecodeTask, MediaError, loader
from erv.media.limits import MAX_SECONDS
from erv.media.nursery import Nursery
from erv.media.sound import read_sound
from erv.media.tracks import voice_of
from erv.media.workers import isolated
from erv.validate.probes import QUIETEST_DB

if TYPE_CHECKING:
    from erv.answering.predictor import Predictor

# The beginnings of files of sound that `container_of` refuses, because they have no pictures.
_SOUND = {
    b"ID3": "mp3",
    b"\xff\xfb": "mp3",
    b"\xff\xf3": "mp3",
    b"\xff\xf2": "mp3",
    b"\xff\xfa": "mp3",
    b"fLaC": "flac",
}
_FULL_SCALE = 32768.0
_ROUNDING = 0.1  # seconds by which what is decoded and what a file tells may differ


def nursery_for(rule: DecodeRule) -> Nursery:
    """What starts the processes that decode clips for `seen_clip`."""
    return Nursery(loader(rule), (see, see_with_sound))


def seen_clip(predictor: Predictor, request: Request) -> Decoded:
    """The clip of a request as the policy takes it; decoded in a process of its own.

    Nothing of the request is left on disk.

    Raises:
        ClipError: it can't be answered; a sentence for the client.
    """
    if request.audio is None:
        (found,) = predictor.decode([request.row], [None])
    else:
        found = _with_sound(predictor, request, request.audio)
    if isinstance(found, ClipError):
        raise found
    return found


def see_with_sound(task: DecodeTask) -> Seen:
    """As `erv.answering.media.see`, with the sound of a second file instead of the clip's own."""
    film, sound = task.files
    seen = see(replace(task, files=(film,), names=task.names[:1]))
    if seen.decoded is None:
        return seen
    heard = _heard(sound, task.rule.sample_rate)
    level = float(np.sqrt(np.mean(np.square(heard / _FULL_SCALE, dtype=np.float64))))
    loudness = QUIETEST_DB if level == 0.0 else max(QUIETEST_DB, 20.0 * float(np.log10(level)))
    probe = replace(
        seen.probe,
        has_audio=True,
        audio_seconds=len(heard) / task.rule.sample_rate,
        loudness_db=loudness,
        sound_after=0.0,
    )
    return Seen(probe, Decoded(seen.decoded.frames, heard))


def _with_sound(predictor: Predictor, request: Request, audio: bytes) -> Decoded | ClipError:
    with tempfile.TemporaryDirectory(prefix="erv-clips-") as temporary:
        film = predictor.clips.file_of(request.row, 0, Path(temporary))
        sound = Path(temporary) / "sound"
        sound.write_bytes(audio)
        task = DecodeTask(predictor.rule, (film, sound), (film.name, sound.name))
        outcomes = isolated(
            see_with_sound,
            [task],
            workers=1,
            seconds=CLIP_SECONDS,
            memory_mb=CLIP_MEMORY_MB,
            expected=(MediaError,),
            prepare=loader(predictor.rule),
            confined=True,
            form=SEEN,
            start=predictor.start,
        )
        with contextlib.closing(outcomes):
            outcome = next(outcomes)
    if outcome.result is None:
        return ClipError(str(outcome.failure).replace(str(film), "the file").replace(str(sound), "the sound"))
    return checked(outcome.result, predictor.limits, predictor.missing_audio)


def _heard(path: Path, rate: int) -> np.ndarray:
    """int16 mono [samples] of a file of sound, or of the sound of a film.

    Raises:
        MediaError: it has no sound, or too much.
    """
    import av

    with path.open("rb") as stream:
        head = stream.read(4)
    form = next((name for start, name in _SOUND.items() if head.startswith(start)), None)
    try:
        form = form or container_of(path)
        with open_container(path, form) as container:
            track = voice_of(container, None)
            voice = None if track is None else int(track.index)  # nothing of it can be read after closing
            seconds = None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, MediaError, OSError, ValueError) as error:
        raise MediaError("the sound can't be read; send wav, mp3, flac, ogg or mp4") from error
    if voice is None:
        raise MediaError("the file of sound has no sound track")
    _require_heard(seconds)
    heard = read_sound(path, form, voice, rate, None)
    if heard is None:
        raise MediaError("the file of sound has no samples")
    _require_heard(len(heard) / rate)  # not every file tells how long it is
    return heard[: round(MAX_SECONDS * rate)]


def _require_heard(seconds: float | None) -> None:
    """Refuses sound that would have to be cut; None: nobody knows how long it is."""
    if seconds is not None and seconds > MAX_SECONDS + _ROUNDING:
        raise MediaError(f"the sound has {seconds:.1f} s, at most {MAX_SECONDS:g} s are heard")
