"""The table that expectations run on: one row per clip, from the manifest and the probed media."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from erv.manifest import ClipRow

if TYPE_CHECKING:
    from erv.validate.probes import Probe


def manifest_table(rows: Sequence[ClipRow], probes: Mapping[str, Probe]) -> Any:
    """A pandas table, one row per clip in the order of `rows`: manifest, media, and values derived from both.

    Unknown values are null, and no expectation counts them: the measurements of a clip that can't be decoded,
    the seconds and the sound of a frame folder. For locations (uris, lines of lists) the table only says
    whether there is one, so that no path gets into a page.
    """
    import pandas as pd

    looks = [probes[row.clip_id] for row in rows]
    sound = [
        None if look.fault or row.media == "frames" else look for row, look in zip(rows, looks, strict=True)
    ]
    seen = [None if look.fault else look for look in looks]
    table = pd.DataFrame(
        {
            "clip_id": [row.clip_id for row in rows],
            "dataset": [row.dataset for row in rows],
            "fold": [row.fold for row in rows],
            "split": [row.split for row in rows],
            "label": [row.label for row in rows],
            "caption": _objects([row.caption for row in rows]),
            "completion": _objects([row.completion for row in rows]),
            "media": [row.media for row in rows],
            "bytes": [row.bytes for row in rows],
            "sha256": [row.sha256 for row in rows],
            "uri_given": [bool(row.uri.strip()) for row in rows],
            "label_from_given": [bool(row.label_from.strip()) for row in rows],
            "split_from_given": [bool(row.split_from.strip()) for row in rows],
            "caption_from_given": _objects(
                [bool((row.caption_from or "").strip()) if row.caption is not None else None for row in rows]
            ),
            "decodable": [look.fault is None for look in looks],
            "frames": _objects([look and look.frames for look in seen]),
            "shorter_side": _objects([look and look.shorter_side for look in seen]),
            "brightness": _objects([look and look.brightness for look in seen]),
            "seconds": _objects([look and look.seconds for look in seen]),
            "fps": _objects([look and look.fps for look in seen]),
            "has_audio": _objects([look and look.has_audio for look in sound]),
            "loudness_db": _objects([look and look.loudness_db for look in sound]),
        }
    )
    table["splits_of_content"] = table.groupby("sha256")["split"].transform("nunique")
    return table


def _objects(values: Sequence[Any]) -> Any:
    """A column in which None stays None."""
    import pandas as pd

    return pd.Series(values, dtype=object)


def content_across_splits(rows: Sequence[ClipRow]) -> list[str]:
    """Equal content in different splits, one text per content: `00019 (train) = 00777 (test)`."""
    by_content: dict[str, list[ClipRow]] = defaultdict(list)
    for row in rows:
        by_content[row.sha256].append(row)
    return [
        " = ".join(f"{row.clip_id} ({row.split})" for row in same)
        for same in by_content.values()
        if len({row.split for row in same}) > 1
    ]
