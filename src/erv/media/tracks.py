"""Which tracks of a file are its film and its voice: those that a player takes.

A file can hold several: a cover picture, another camera, other languages, a description for the blind.
FFmpeg's choice counts: tracks marked as default come first, then those with more in them. The choice is made
once (`erv.media.header`), and every reader gets its number. Cover pictures are never the film.
"""

from __future__ import annotations

from typing import Any


def films(container: Any) -> list[Any]:
    """The video tracks of PyAV's container that are no cover pictures."""
    from av.stream import Disposition

    return [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]


def is_clear(container: Any) -> bool:
    """Whether there is nothing to choose from, so that the file's header suffices."""
    return len(films(container)) <= 1 and len(container.streams.audio) <= 1


def film_of(container: Any) -> Any | None:
    """The video track to take; None without one."""
    return _chosen(films(container), container.streams.best("video"))


def voice_of(container: Any, film: Any) -> Any | None:
    """The sound track to take, from the same programme of a transport stream; None without one."""
    return _chosen(list(container.streams.audio), container.streams.best("audio", related=film))


def _chosen(tracks: list[Any], best: Any | None) -> Any | None:
    """FFmpeg's choice among the tracks that can be decoded; its first rule where it names none of them."""
    from av.stream import Disposition

    able = [track for track in tracks if track.codec_context is not None] or tracks
    for track in able:
        if best is not None and track.index == best.index:
            return track
    return max(able, key=lambda track: bool(track.disposition & Disposition.default), default=None)
