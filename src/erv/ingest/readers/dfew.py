"""DFEW (Jiang et al., ACM MM 2020): the official single-labelled splits, in both layouts in circulation.

Layout A has `EmoLabel_DataSplit/{train,test}(single-labeled)/set_N.csv`, `Annotation/annotation.xlsx` and
`Clip/`, layout B `label/single_{trainset,testset}_N.csv` and `clip/` or frames in `data/`. Original videos
are unpadded (`1.mp4`), copies and frame folders padded to five digits; frame folders have no sound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from erv.errors import DataError
from erv.ingest.readers import dfew_annotation
from erv.ingest.readers import tree as trees
from erv.ingest.readers.numbering import require_one_reading
from erv.ingest.readers.reading import OFFICIAL_FOLDS, Listed, Reading, gather, require_official, some
from erv.ingest.readers.tabular import csv_rows
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace
from erv.settings.ingest import DfewReader
from erv.sources import Lock, ObjectStore
from erv.sources.selection import Selection, is_video

# Folders of each kind of media below the tree's root, and the shape of a clip's name in them.
_FOLDERS = {
    "original": ("Clip/original", "clip", "clips", "data/clips", "Clip"),
    "avi": ("Clip/clip_224x224_avi", "clip_224x224_avi"),
    "frames": ("Clip/clip_224x224", "clip_224x224", "data"),
    "frames_16": ("Clip/clip_224x224_16f", "clip_224x224_16f"),
}
_NAMES = {
    "original": r"(\d{1,5})\.mp4",
    "avi": r"(\d{1,5})\.avi",
    "frames": r"(\d{5})",
    "frames_16": r"(\d{5})",
}
_IMAGE_FOLDERS = {
    "frames": r"(^|/)(clip_224x224|data)/\d{5}/?$",
    "frames_16": r"(^|/)clip_224x224_16f/\d{5}/?$",
}
# Media that the chosen kind doesn't need. The first clip stays listed, to tell a wrong `media` from missing
# clips.
_FIRST_FOLDER = r"(^|/)(clip_224x224|clip_224x224_16f|data)/00001/?$"
_SKIPPED = {
    "original": r"(^|/)(?!1\.mp4$)\d+\.mp4$|(^|/)original\.zip$",
    "avi": r"(^|/)(?!00001\.avi$)\d{5}\.avi$|(^|/)clip_224x224_avi\.zip$",
    "frames": r"(^|/)clip_224x224\.zip$",
    "frames_16": r"(^|/)clip_224x224_16f\.zip$",
}


def selection(settings: DfewReader) -> Selection:
    """The chosen kind of media, and the first clip of each other kind."""
    frames = _FIRST_FOLDER
    if settings.media in _IMAGE_FOLDERS:
        frames = f"{_IMAGE_FOLDERS[settings.media]}|{frames}"
    skip = tuple(pattern for kind, pattern in _SKIPPED.items() if kind != settings.media)
    return Selection(skip=skip, frames=frames, aggregate=True)


def read(dataset: str, lock: Lock, store: ObjectStore | None, settings: DfewReader, fold: int) -> Reading:
    """Reads one fold, and the lists of all folds for the checks.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.
        settings: which media.
        fold: 1..5.

    Raises:
        DataError: a file is missing or malformed, or a label id is out of range.
    """
    require_official(dataset, fold)
    space = LabelSpace.load(dataset)
    tree = trees.locate(lock, store, trees.DFEW)
    clips = _clips(tree, settings.media)
    listing: dict[int, tuple[Listed, ...]] = {}
    for number in OFFICIAL_FOLDS:
        items: list[Listed] = []
        for split, path in _split_files(tree, number, required=number == fold).items():
            items += _lines(tree, path, split, space)
        if items:
            listing[number] = tuple(items)
    listing.setdefault(fold, ())
    annotations = dfew_annotation.read(tree, space)
    _require_one_numbering(listing, annotations, space)
    folder, suffix = _place(tree, settings.media, clips)

    def place(clip_id: str) -> str:
        return clips.get(clip_id) or tree.full(f"{folder}/{_padded(clip_id, settings.media)}{suffix}")

    return gather(
        lock,
        listing,
        fold,
        place,
        {*clips.values(), *_other_videos(tree, folder, settings.media)},
        media="frames" if settings.media in _IMAGE_FOLDERS else "video",
        checks=[tree.check(), *dfew_annotation.compare(annotations, listing)],
    )


def _require_one_numbering(
    listing: Mapping[int, Sequence[Listed]],
    annotations: Sequence[dfew_annotation.Annotation],
    space: LabelSpace,
) -> None:
    """Refuses a list that may count from 0; raises DataError."""
    files: dict[str, dict[str, int]] = {}
    for item in (item for items in listing.values() for item in items):
        files.setdefault(item.where.rpartition(":")[0], {})[item.clip_id] = space.ids[item.label]
    known = {clip: label_id for sheet in annotations for clip, label_id in sheet.certain(space).items()}
    require_one_reading(
        files,
        known,
        space,
        "add Annotation/annotation.xlsx or the lists of the other folds, or use the official file",
    )


def _other_videos(tree: Tree, folder: str, media: str) -> set[str]:
    """Videos in the folder of the clips under names that no list can mean, so that they are counted."""
    if media in _IMAGE_FOLDERS:
        return set()
    start = f"{folder}/" if folder else ""
    names = (path for path in tree.paths if path.startswith(start) and is_video(path))
    return {tree.full(path) for path in names if "/" not in path.removeprefix(start)}


def _padded(clip_id: str, media: str) -> str:
    return clip_id if media == "original" else f"{int(clip_id):05d}"


def _place(tree: Tree, media: str, clips: dict[str, str]) -> tuple[str, str]:
    """Folder and suffix of clips of this kind, to name a missing one."""
    first = next(iter(clips.values())).removeprefix(tree.prefix)
    return first.rpartition("/")[0], {"original": ".mp4", "avi": ".avi"}.get(media, "")


def _clips(tree: Tree, media: str) -> dict[str, str]:
    """Path of each clip by its number, from the first folder that has any."""
    found = _clips_of(tree, media)
    if found:
        return found
    expected = " or ".join(f"`{tree.full(folder)}/`" for folder in _FOLDERS[media][:3])
    what = {"original": "video", "avi": "224x224 .avi copy"}.get(media, "folder of frames")
    setting = f"ingest.readers.{tree.lock.name}.media"
    others = [kind for kind in _FOLDERS if kind != media and _clips_of(tree, kind)]
    if others:
        silent = "; frames have no sound" if set(others) <= set(_IMAGE_FOLDERS) else ""
        remedy = f"the source has `{'`, `'.join(others)}`: set {setting} to that and pin it again{silent}"
    else:
        remedy = f"put the clips there, or set {setting} to what the source has, and pin it again"
    raise DataError(
        f"{tree.lock.name}: no {what} below {expected} in {tree.lock.uri}; {remedy} (`erv data pin`)"
    )


def _clips_of(tree: Tree, media: str) -> dict[str, str]:
    for folder in _FOLDERS[media]:
        clips: dict[str, str] = {}
        for match in tree.matching(rf"(?i){re.escape(folder)}/{_NAMES[media]}"):
            path = tree.full(match[0])
            if media in _IMAGE_FOLDERS and tree.lock.find(path).frames is None:
                continue
            clip_id = str(int(match[1]))
            if clip_id in clips:
                raise DataError(
                    f"{tree.lock.name}: {clips[clip_id]!r} and {path!r} are the same clip; remove one of them"
                )
            clips[clip_id] = path
        if clips:
            return clips
    return {}


def _split_files(tree: Tree, fold: int, *, required: bool) -> dict[str, str]:
    """Paths of the train and the test list of a fold; empty if the tree has neither."""
    candidates = {
        split: (
            f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv",
            f"label/single_{split}set_{fold}.csv",
        )
        for split in ("train", "test")
    }
    if not required and not any(path in tree for paths in candidates.values() for path in paths):
        return {}
    for paths in candidates.values():
        if all(path in tree for path in paths) and _labelled(tree, paths[0]) != _labelled(tree, paths[1]):
            first, second = (repr(tree.full(path)) for path in paths)
            other = _labelled(tree, paths[0]) ^ _labelled(tree, paths[1])
            raise DataError(
                f"{tree.lock.name}: {first} and {second} in {tree.lock.uri} list other clips or labels"
                f" ({some({str(clip) for clip, _ in other})}); keep"
                " the lists of one layout and pin the source again with `erv data pin`"
            )
    return {
        split: tree.required(paths, f"{split} split of fold {fold}") for split, paths in candidates.items()
    }


def _labelled(tree: Tree, path: str) -> set[tuple[int, str]]:
    """Clip numbers and labels of a list, without malformed names: `_lines` reports where those are."""
    rows = csv_rows(tree.read(path), tree.full(path), [["video_name"], ["label"]])
    return {(int(name), label) for _, (name, label) in rows if re.fullmatch(r"\d{1,5}", name)}


def _lines(tree: Tree, path: str, split: str, space: LabelSpace) -> list[Listed]:
    full = tree.full(path)
    ids = f"{min(space.ids.values())}..{max(space.ids.values())}"
    items = []
    for line, (name, raw) in csv_rows(tree.read(path), full, [["video_name"], ["label"]]):
        if not re.fullmatch(r"\d{1,5}", name):
            raise DataError(f"{full}, line {line}: {name!r} is not a clip number like `1` or `00001`")
        if not re.fullmatch(r"\d{1,9}", raw):
            raise DataError(
                f"{full}, line {line}: label {raw!r} is not a label id of {ids}; use the official file, whose"
                f" ids mean {some_labels(space)}"
            )
        try:
            label = space.name_of(int(raw))
        except DataError as error:
            raise DataError(f"{full}, line {line}: {error}") from error
        items.append(Listed(str(int(name)), split, label, raw, f"{full}:{line}"))
    return items


def some_labels(space: LabelSpace) -> str:
    """Ids and names of a space, for a message."""
    return ", ".join(f"{label_id} {name}" for name, label_id in space.ids.items())
