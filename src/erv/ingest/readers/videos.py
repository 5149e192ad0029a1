"""Which video an explanation means: the one of its name, and of its folder where the name does not tell."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from erv.ingest.readers.explanations import Explained
from erv.ingest.readers.places import comparable, stem, without_zeros

Parts = tuple[str, ...]


@dataclass
class Matched:
    """The clips of a table's rows.

    Attributes:
        ids: clip id of each row: the video's name, with as many of its folders as tell equal names apart.
        places: path in the source by clip id; a clip that the source lacks is not in it.
        unclear: clip id -> the videos that it may be.
        expected: clip id -> where its video would be, beside one of the same number with other zeros.
    """

    ids: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    unclear: dict[str, list[str]] = field(default_factory=dict)
    expected: dict[str, str] = field(default_factory=dict)


def match(rows: Sequence[Explained], videos: Iterable[str]) -> Matched:
    """Finds the video of each row.

    A name that one row and one video have is enough, because tables often name folders of their author's
    machine. Where a name occurs several times the folders decide, and a row whose folder fits none of the
    videos has no video.

    Args:
        rows: of the table.
        videos: paths of the source's videos.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    by_other_case: dict[str, list[str]] = defaultdict(list)
    by_number: dict[str, str] = {}
    for video in sorted(videos):
        name = _parts(video)[-1]
        by_name[name].append(video)
        by_other_case[comparable(name)].append(video)
        by_number.setdefault(without_zeros(name), video)
    namesakes: dict[str, list[Parts]] = defaultdict(list)
    for parts in dict.fromkeys(_parts(row.video) for row in rows):
        namesakes[parts[-1]].append(parts)
    found = Matched()
    for row in rows:
        parts = _parts(row.video)
        others = [other for other in namesakes[parts[-1]] if other != parts]
        candidates = by_name.get(parts[-1]) or by_other_case.get(comparable(parts[-1]), [])
        needed = _telling(parts, others)
        clip_id = "/".join(parts[-needed:])
        found.ids.append(clip_id)
        fitting = [video for video in candidates if needed == 1 or _common(_parts(video), parts) >= needed]
        if len(fitting) > 1 or (needed == 1 and others):
            fitting = _best(fitting, parts)
        if len(fitting) == 1:
            found.places[clip_id] = fitting[0]
        elif fitting:
            found.unclear[clip_id] = fitting
        elif not candidates and (near := by_number.get(without_zeros(parts[-1]))):
            found.expected[clip_id] = near[: -len(PurePosixPath(near).name)] + (
                f"{parts[-1]}{PurePosixPath(near).suffix}"
            )
    _refuse_shared(found)
    return found


def _telling(parts: Parts, others: Sequence[Parts]) -> int:
    """How many parts from the end tell a path apart from others; 1 if they can't, or if there are none."""
    for count in range(1, len(parts) + 1):
        if all(parts[-count:] != other[-count:] for other in others):
            return count
    return 1


def _best(videos: Sequence[str], parts: Parts) -> list[str]:
    """Those of the videos that share the most folders with a path, from the end."""
    most = max((_common(_parts(video), parts) for video in videos), default=0)
    return [video for video in videos if _common(_parts(video), parts) == most]


def _common(one: Parts, other: Parts) -> int:
    count = 0
    while count < min(len(one), len(other)) and comparable(one[-1 - count]) == comparable(other[-1 - count]):
        count += 1
    return count


def _parts(path: str) -> Parts:
    """Folders and name of a path with either slash, the name without suffix."""
    plain = unicodedata.normalize("NFC", path.strip().replace("\\", "/"))
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    return (*parts[:-1], stem(parts[-1])) if parts else ("",)


def _refuse_shared(found: Matched) -> None:
    """Two names that mean the same video, in another case say, leave it unclear which one is right."""
    by_video: dict[str, list[str]] = defaultdict(list)
    for clip_id, video in found.places.items():
        by_video[video].append(clip_id)
    for video, clips in by_video.items():
        if len(clips) > 1:
            found.unclear |= {clip: [f"{video} (of {' and '.join(clips)})"] for clip in clips[:1]}
