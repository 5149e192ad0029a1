"""Probes and decodes the clips of a request, in a process of its own that a file may crash or hang."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.answering.clips import CLIP_MEMORY_MB, ClipError
from erv.media.answers import AnswerError, Form, record_of
from erv.media.decode import (
    DECODED,
    Decoded,
    DecodeRule,
    DecodeTask,
    MediaError,
    decode_item,
    decode_task,
    loader,
)
from erv.media.worker_process import Start, start_alone
from erv.media.workers import isolated
from erv.validate.bounds import missed_bound
from erv.validate.probes import Probe
from erv.validate.video_probe import probe_video

CLIP_SECONDS = 30.0


@dataclass(frozen=True)
class Seen:
    """A clip as it was probed and decoded; `decoded` is None if the probe found a fault."""

    probe: Probe
    decoded: Decoded | None


def decoded_clips(
    paths: Sequence[Path],
    rule: DecodeRule,
    limits: Mapping[str, Any],
    missing_audio: str | None,
    start: Start = start_alone,
) -> Iterator[Decoded | ClipError]:
    """Decodes clips exactly as they were for training, if they pass the checks of the stage validate.

    Args:
        paths: video files.
        rule: how they are decoded.
        limits: see `erv.validate.bounds.bounds`.
        missing_audio: `extract.missing_audio` when the version was made, None if it doesn't say; only under
            `mark` it has seen clips without sound.
        start: how the process that decodes is started.

    Yields:
        Per file the clip, or why it can't be answered, without the path.
    """
    outcomes = isolated(
        see,
        [decode_task(path, rule) for path in paths],
        workers=1,
        seconds=CLIP_SECONDS,
        memory_mb=CLIP_MEMORY_MB,
        expected=(MediaError,),
        prepare=loader(rule),
        confined=True,
        form=SEEN,
        start=start,
    )
    with contextlib.closing(outcomes):
        for path, outcome in zip(paths, outcomes, strict=True):
            if outcome.result is None:
                yield ClipError(str(outcome.failure).replace(str(path), "the file"))
            else:
                yield checked(outcome.result, limits, missing_audio)


def see(task: DecodeTask) -> Seen:
    """Probes a video and decodes it."""
    probe = probe_video(task.files[0])
    return Seen(probe, decode_item(task) if probe.decodable else None)


def checked(seen: Seen, limits: Mapping[str, Any], missing_audio: str | None) -> Decoded | ClipError:
    """The clip if it passes the checks, or why it can't be answered; see `decoded_clips`."""
    if seen.decoded is None:
        return ClipError(str(seen.probe.fault))
    if seen.decoded.audio is None and missing_audio != "mark":
        return ClipError(_no_sound(missing_audio))
    fault = missed_bound(seen.probe, limits)
    return seen.decoded if fault is None else ClipError(fault)


def _no_sound(missing_audio: str | None) -> str:
    if missing_audio is None:
        return (
            "no sound track; this version does not say that it was made with such clips, so it answers none"
        )
    return (
        "no sound track; clips without sound were left out when this version was made (extract.missing_audio:"
        f" {missing_audio}), so it answers none"
    )


def _seen_of(task: DecodeTask, value: Any) -> Seen:
    """A worker's answer; raises AnswerError if it is none."""
    if not isinstance(value, dict) or value.keys() != {"probe", "decoded"}:
        raise AnswerError("no probed clip")
    decoded = value["decoded"]
    return Seen(record_of(Probe, value["probe"]), None if decoded is None else DECODED.read(task, decoded))


# What `see` may answer.
SEEN: Form[DecodeTask, Seen] = Form(_seen_of, DECODED.most_bytes)
