"""DFEW (Jiang et al., ACM MM 2020): the official single-labelled splits, in both layouts that occur.

Layout A has `EmoLabel_DataSplit/{train,test}(single-labeled)/set_N.csv` and `Clip/original/1.mp4`, layout B
`label/single_{trainset,testset}_N.csv` and `clip/1.mp4`. Videos are unpadded, frame folders padded to five
digits; frame folders have no sound and are not read.
"""

from __future__ import annotations

from erv.data.reading import Entry, Reading, checked, csv_rows, first_existing
from erv.data.sources import Lock, ObjectStore
from erv.errors import DataError
from erv.labels import LabelSpace

_CLIP_FOLDERS = ("Clip/original", "clip", "clips", "data/clips")


def read(lock: Lock, store: ObjectStore | None, fold: int) -> Reading:
    """Reads one fold.

    Raises:
        DataError: a file is missing or malformed, a label id out of 1..7, a clip missing or in both splits.
    """
    space = LabelSpace.load("dfew")
    videos = {
        folder: [
            file.path
            for file in lock.files
            if file.path.startswith(f"{folder}/") and file.path.endswith(".mp4")
        ]
        for folder in _CLIP_FOLDERS
    }
    folder = next((name for name, paths in videos.items() if paths), None)
    if folder is None:
        raise DataError(
            f"dfew: no video below {' or '.join(_CLIP_FOLDERS)} in {lock.uri}; frame folders alone have"
            " no sound, add the original clips"
        )
    entries = []
    for split in ("train", "test"):
        candidates = [
            f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv",
            f"label/single_{split}set_{fold}.csv",
        ]
        path = first_existing(lock, candidates, f"{split} split of fold {fold}")
        for number, (name, raw) in enumerate(
            csv_rows(lock.read(store, path), path, [["video_name"], ["label"]]), start=2
        ):
            if not name.isdigit() or not raw.isdigit():
                raise DataError(
                    f"{path}, line {number}: {name!r},{raw!r} is not a clip number and a label id"
                )
            try:
                label = space.name_of(int(raw))
            except DataError as error:
                raise DataError(f"{path}, line {number}: {error}") from error
            clip_id = str(int(name))
            entries.append(Entry(clip_id, split, label, raw, f"{folder}/{clip_id}.mp4"))
    return checked(lock, entries, videos[folder])
