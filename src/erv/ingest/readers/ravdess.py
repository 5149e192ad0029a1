"""RAVDESS (Livingstone & Russo, PLoS ONE 13(5), 2018): acted speech and song, read from the file names.

`modality-channel-emotion-intensity-statement-repetition-actor.mp4`. Audio-video files (modality 01) of the
chosen channels are clips, all for testing, because the set has no splits.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from erv.errors import DataError
from erv.ingest.readers import tree as trees
from erv.ingest.readers.reading import Excluded, Listed, Reading, gather
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace
from erv.settings.ingest import RavdessReader
from erv.sources import Lock, ObjectStore
from erv.sources.selection import Selection, is_video

_CHANNELS = {"speech": "01", "song": "02"}
_NAME = re.compile(r"01-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_ACTORS = range(1, 25)
_NEUTRAL = 1
_SUNG = range(1, 7)
_SPLIT = "no official split: all clips are for testing"


def selection(settings: RavdessReader) -> Selection:
    """Audio-video files of the chosen channels, without the silent (02) and audio-only (03) ones."""
    others = "".join(code[1] for name, code in _CHANNELS.items() if name not in settings.channels)
    skip = [r"(^|/)0[23](-\d\d){6}\.(mp4|wav)$", r"(^|/)Audio_[^/]*\.zip$"]
    if others:
        skip.append(rf"(^|/)01-0[{others}](-\d\d){{5}}\.mp4$")
        skip += [
            rf"(^|/)Video_{name.title()}_[^/]*\.zip$" for name in _CHANNELS if name not in settings.channels
        ]
    return Selection(skip=tuple(skip), aggregate=True)


def read(dataset: str, lock: Lock, store: ObjectStore | None, settings: RavdessReader) -> Reading:
    """Reads the set; it has no folds.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.
        settings: which channels.

    Raises:
        DataError: there is no file of the chosen channels.
    """
    space = LabelSpace.load(dataset)
    tree = Tree(lock, store, "")  # clips may be in any folder
    chosen = selection(settings)
    items: list[Listed] = []
    excluded: list[Excluded] = []
    paths: dict[str, str] = {}
    wrong: dict[str, str] = {}
    clips = []
    for path in tree.paths:
        name = PurePosixPath(path)
        if not is_video(path) or chosen.kind(path) == "skipped":
            continue
        full = tree.full(path)
        match = _NAME.fullmatch(name.stem) if name.suffix.lower() == ".mp4" else None
        if match is None:
            clips.append(full)
            continue
        reason = _fault(name, match, space)
        if reason:
            excluded.append(Excluded(name.stem, reason, full))
            wrong[name.stem] = full
            continue
        clips.append(full)
        paths.setdefault(name.stem, full)
        label = space.name_of(int(match[2]))
        items.append(Listed(name.stem, "test", label, match[2], f"{full} (its name)"))
    if not items and not excluded:
        trees.refuse_others(lock, trees.RAVDESS)
        raise DataError(
            f"{lock.name}: no clip of {' or '.join(settings.channels)} in {lock.uri}; expected names like"
            f" `{trees.RAVDESS.example}` (first field 01: sound and video), found at its top"
            f" {trees.top_of(lock)}; set sources.{lock.name} to the folder of the set, or"
            f" ingest.readers.{lock.name}.channels to what it has, and pin it with `erv data pin`"
        )
    return gather(
        lock,
        {0: tuple(items)},
        0,
        lambda clip: paths.get(clip) or wrong[clip],
        clips,
        split_from=_SPLIT,
        excluded=excluded,
    )


def _fault(path: PurePosixPath, match: re.Match[str], space: LabelSpace) -> str | None:
    """Why a file's name can't be right, or None."""
    channel, emotion, intensity, statement, repetition, actor = (int(match[i]) for i in range(1, 7))
    folder = re.fullmatch(r"Actor_(\d\d)", path.parent.name)
    if f"{channel:02d}" not in _CHANNELS.values():
        return "its name gives a channel that is not 01 (speech) or 02 (song)"
    if not space.has_id(emotion):
        return "its name gives an emotion that is not in the label space"
    if actor not in _ACTORS:
        return "its name gives an actor beyond 01..24"
    if not {intensity, statement, repetition} <= {1, 2}:
        return "its name gives an intensity, statement or repetition that is not 01 or 02"
    if emotion == _NEUTRAL and intensity == 2:
        return "its name says neutral with strong intensity, which was not recorded"
    if channel == 2 and emotion not in _SUNG:
        return "its name says disgust or surprise in song, which was not recorded"
    if folder and int(folder[1]) != actor:
        return "its name and its folder give different actors"
    return None
