"""Asks a bundle about clips, one after the other, and passes on what it says while it says it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from erv.answering.clips import LONGEST_NAME
from erv.answering.events import Error, Event
from erv.answering.process import Answerer
from erv.answering.requests import Request


@dataclass(frozen=True)
class Asked:
    """A clip, and what is said about it as it comes; the last event is `Done` or `Error`."""

    clip: Path
    events: Iterator[Event]


def explained(
    bundle: Path | None, clips: Sequence[Path], request: Request, *, device: str, log: Path
) -> Iterator[Asked]:
    """What is said about clips, in their order.

    Each is asked alone, so that its answer doesn't depend on the others; while one is answered, the next ones
    are decoded. The events of a clip must be read before the next clip is taken.

    Args:
        bundle: the folder; None if no clip can be asked about, by `fault_of`.
        clips: files.
        request: what else is asked, the same of all.
        device: "auto", "cpu" or "cuda".
        log: file for what the model's process prints.

    Raises:
        RegistryError, EvaluationError: see `erv.answering.process.Answerer`.
    """
    faults = [fault_of(clip) for clip in clips]
    if bundle is None:
        yield from (Asked(clip, iter([_error(fault)])) for clip, fault in zip(clips, faults, strict=True))
        return
    with Answerer(
        bundle, root="/", device=device, batch=1, queue=max(1, len(clips)), decoders=2, log=log
    ) as answerer:
        # Below the root of the file system, which is the served folder here.
        tickets = [
            None if fault is not None else answerer.submit(replace(request, clip=_name(clip)))
            for clip, fault in zip(clips, faults, strict=True)
        ]
        for clip, ticket, fault in zip(clips, tickets, faults, strict=True):
            yield Asked(clip, iter([_error(fault)]) if ticket is None else ticket.events())


def _name(clip: Path) -> str:
    return str(clip.resolve()).removeprefix("/")


def _error(fault: str | None) -> Error:
    assert fault is not None
    return Error(fault, "clip")


def fault_of(clip: Path) -> str | None:
    """Why a file can't be asked about, as far as that is seen without reading it."""
    if clip.is_dir():
        return "a folder; name its clips, or ask about all with `erv predict`"
    if not clip.is_file():
        return "no such file"
    if not os.access(clip, os.R_OK):
        return "can't be read (Permission denied)"
    name = os.fsencode(_name(clip))
    try:
        return "its path is too long; move it up" if len(name.decode()) > LONGEST_NAME else None
    except UnicodeDecodeError:
        return "its path is not UTF-8; rename it"
