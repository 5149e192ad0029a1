"""Refuses label ids that can be read in two ways: as the data set numbers its labels, or from the other base.

Third-party files often count from 0 where the data set counts from 1. With a 0 in it such a file is refused
at once. Without its first class it would fit the range, and every label would be the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from erv.errors import DataError
from erv.labels import LabelSpace

Ids = Mapping[str, int]


def fits_both(ids: Collection[int], space: LabelSpace) -> bool:
    """Whether ids are within the space both as they are and if they count from 0 instead of 1, or reverse."""
    low = min(space.ids.values())
    if low not in (0, 1) or not ids:
        return False
    step = 1 if low == 1 else -1
    return {label_id + step for label_id in ids} <= set(space.ids.values())


def require_one_reading(files: Mapping[str, Ids], known: Ids, space: LabelSpace, remedy: str) -> None:
    """Refuses a file that fits both bases and that nothing settles.

    A file is settled by an id that only one base allows, or by a clip that a settled file, or `known`, labels
    too. Whether those labels agree is for other checks.

    Args:
        files: by path, the id of each clip.
        known: ids of clips that are certain, from a sheet that states its numbering.
        space: the ids and their names.
        remedy: what settles it.

    Raises:
        DataError: a file fits both.
    """
    certain = set(known)
    left = {path: ids for path, ids in files.items() if ids}
    while True:
        settled = [
            path
            for path, ids in left.items()
            if not certain.isdisjoint(ids) or not fits_both(set(ids.values()), space)
        ]
        if not settled:
            break
        for path in settled:
            certain.update(left.pop(path))
    if left:
        path, ids = next(iter(left.items()))
        raise DataError(ambiguous(path, set(ids.values()), space, remedy))


def ambiguous(path: str, ids: Collection[int], space: LabelSpace, remedy: str) -> str:
    """The sentence that refuses a file."""
    low, high = min(space.ids.values()), max(space.ids.values())
    found = f"{min(ids)}..{max(ids)}" if len(set(ids)) > 1 else str(min(ids))
    names = {label_id: name for name, label_id in space.ids.items()}
    other = names[min(ids) + (1 if low == 1 else -1)]
    return (
        f"{path}: its label ids are {found}, so it may count from 1 or from 0: {min(ids)} may mean"
        f" {names[min(ids)]} or {other}, and neither {1 - low} nor {high if low == 1 else low} occurs to"
        f" tell (expected ids of {space.name}, {low}..{high}); {remedy}"
    )
