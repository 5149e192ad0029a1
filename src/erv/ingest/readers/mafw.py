"""MAFW (Liu et al., ACM MM 2022): the official single and compound sets, five folds.

Labels and splits come from `Train & Test Set/{single,compound}/{no_caption,with_caption}/set_N/*.txt`;
captions from the captioned list and, where that lacks one, from `descriptive_text.xlsx`. The sheets in
`Labels` must agree with the lists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from erv.errors import DataError
from erv.ingest.readers import mafw_lists as lists
from erv.ingest.readers import mafw_sheets as sheets
from erv.ingest.readers import tree as trees
from erv.ingest.readers.encoding import damage_in_english, encoding_check
from erv.ingest.readers.reading import (
    OFFICIAL_FOLDS,
    Check,
    Listed,
    Listing,
    Reading,
    first_clips,
    gather,
    require_official,
    some,
)
from erv.ingest.readers.tree import Tree
from erv.labels import LabelSpace
from erv.settings.ingest import MafwReader
from erv.sources import Lock, ObjectStore
from erv.sources.selection import Selection, is_video

_CLIP_FOLDERS = ("data/clips", "clips")
_NO_CLIP = r"(^|/)frames(/|\.zip$)|(^|/)Labels\(auto\)(/|\.zip$)"


def selection(settings: MafwReader) -> Selection:
    """Skips frames, which have no sound, and automatic labels."""
    return Selection(skip=(_NO_CLIP,), aggregate=True)


def read(dataset: str, lock: Lock, store: ObjectStore | None, settings: MafwReader, fold: int) -> Reading:
    """Reads one fold, and the lists of all folds for the checks.

    Args:
        dataset: its name, and that of its label space.
        lock: the pinned source.
        store: for sources in an object store.
        settings: set and listing.
        fold: 1..5.

    Raises:
        DataError: a file is missing or malformed, or a label is not in the label space.
    """
    require_official(dataset, fold)
    space = LabelSpace.load(dataset)
    tree = trees.locate(lock, store, trees.MAFW)
    folder = _clip_folder(tree)
    clips = tree.once(rf"{re.escape(folder)}/(\d{{5}})\.mp4")
    captioned = settings.listing == "with_caption"
    read_list = lists.captioned if captioned else lists.plain
    listing: dict[int, tuple[Listed, ...]] = {}
    captions: dict[str, tuple[str, str]] = {}
    notes: list[Check] = []
    for number in OFFICIAL_FOLDS:
        paths = _split_files(tree, settings, number, required=number == fold)
        items: list[Listed] = []
        for split, path in paths.items():
            lines = read_list(tree, path, space)
            notes += lines.checks
            items += [Listed(line.clip_id, split, line.label, line.raw, line.where) for line in lines.rows]
            if number == fold:
                captions |= {line.clip_id: (line.caption, line.where) for line in lines.rows if line.caption}
        if paths:
            listing[number] = tuple(items)
    more_captions, more = _other_lists(tree, settings, fold, listing, space)
    captions = more_captions | captions
    notes += more
    book = sheets.compare(tree, settings, listing, space)
    expected_ids = {
        item.clip_id for item in listing[fold] if item.label != "neutral"
    }  # neutral clips have none
    if expected_ids - set(captions):
        in_sheet, more = sheets.captions(tree, expected_ids - set(captions))
        captions = in_sheet | captions
        notes += more
    texts = {clip: text for clip, (text, _) in captions.items()}
    notes.append(encoding_check(texts, damage_in_english))
    notes.append(_caption_check(expected_ids, captions))
    return gather(
        lock,
        listing,
        fold,
        lambda clip: clips.get(clip) or tree.full(f"{folder}/{clip}.mp4"),
        [tree.full(path) for path in tree.paths if path.startswith(f"{folder}/") and is_video(path)],
        captions=captions,
        checks=[tree.check(), *_merged(notes), *book.checks],
        sizes=book.sizes,
    )


def _clip_folder(tree: Tree) -> str:
    for folder in _CLIP_FOLDERS:
        if any(path.startswith(f"{folder}/") and path.lower().endswith(".mp4") for path in tree.paths):
            return folder
    expected = " or ".join(f"`{tree.full(folder)}/NNNNN.mp4`" for folder in _CLIP_FOLDERS)
    elsewhere = {m[1] or "." for m in tree.matching(r"(?i)(?:(.+)/)?\d{5}\.mp4")}
    found = f", found such clips in {some(elsewhere)}: rename that folder" if elsewhere else ""
    raise DataError(
        f"{tree.lock.name}: no clip in {tree.lock.uri}; expected {expected}{found}; put the clips there, or"
        " clips.zip as delivered, and pin the source again with `erv data pin`"
    )


def _split_files(
    tree: Tree, settings: MafwReader, fold: int, *, required: bool, listing: str | None = None
) -> dict[str, str]:
    """Paths of the train and the test list of a fold; empty if the tree has neither."""
    folder = f"Train & Test Set/{settings.set}/{listing or settings.listing}/set_{fold}"
    paths = {split: f"{folder}/{split}.txt" for split in ("train", "test")}
    if not required and not any(path in tree for path in paths.values()):
        return {}
    return {split: tree.required([path], f"{split} split of fold {fold}") for split, path in paths.items()}


def _other_lists(
    tree: Tree, settings: MafwReader, fold: int, listing: Listing, space: LabelSpace
) -> tuple[dict[str, tuple[str, str]], list[Check]]:
    """Captions from the lists that are not the chosen ones, and checks that they agree with those."""
    other: Literal["no_caption", "with_caption"] = (
        "no_caption" if settings.listing == "with_caption" else "with_caption"
    )
    read_list = lists.captioned if other == "with_caption" else lists.plain
    chosen = {item.clip_id: item for items in listing.values() for item in items}
    splits = {item.clip_id: item.split for item in listing[fold]}
    captions: dict[str, tuple[str, str]] = {}
    checks: list[Check] = []
    labels: dict[str, str] = {}
    elsewhere: list[str] = []
    found = False
    for number in OFFICIAL_FOLDS:
        for split, path in _split_files(tree, settings, number, required=False, listing=other).items():
            lines = read_list(tree, path, space)
            checks += lines.checks
            for line in lines.rows:
                item = chosen.get(line.clip_id)
                if item is not None and item.label != line.label:
                    labels.setdefault(
                        line.clip_id,
                        f"{line.clip_id} ({item.label} in {item.where}, {line.label} in {line.where})",
                    )
                if number == fold:
                    found = True
                    if line.caption:
                        captions[line.clip_id] = (line.caption, line.where)
                    # The captioned lists are the shorter ones.
                    if splits.get(line.clip_id) != split and (item is not None or other == "with_caption"):
                        elsewhere.append(line.clip_id)
    if labels:
        checks.append(
            Check(
                "one_label_in_both_lists",
                False,
                "error",
                f"the same label in no_caption and with_caption of the {settings.set} set",
                f"{len(labels)} clips have two labels: {some(labels.values())}",
                first_clips(labels),
                "use the official files as they were delivered",
            )
        )
    if found:
        said = f"{len(elsewhere)} clips have another split there" if elsewhere else "the same in both"
        checks.append(
            Check(
                "captioned_list",
                not elsewhere,
                "warning",
                f"the split of {other}/set_{fold} in {settings.listing}/set_{fold} too",
                f"{settings.set}: {said}" + (f": {some(elsewhere)}" if elsewhere else ""),
                first_clips(elsewhere),
                "the folders of the folds may be exchanged in one of the two" if elsewhere else "",
            )
        )
    return captions, checks


def _caption_check(expected_ids: set[str], captions: Mapping[str, tuple[str, str]]) -> Check:
    without = expected_ids - set(captions)
    return Check(
        "captions",
        not without,
        "warning",
        "one for every clip but the neutral ones",
        f"{len(without)} of {len(expected_ids)} clips that are not neutral have no caption"
        + (f": {some(without)}" if without else ""),
        first_clips(without),
        "add `Train & Test Set/../with_caption` or `Labels/descriptive_text.xlsx`" if without else "",
    )


def _merged(notes: list[Check]) -> list[Check]:
    """Merges checks of equal name and outcome; otherwise a fold's ten files say the same ten times."""
    merged: dict[tuple[str, bool], list[Check]] = {}
    for note in notes:
        merged.setdefault((note.name, note.success), []).append(note)
    result = []
    for same in merged.values():
        found = dict.fromkeys(check.found for check in same)
        text = same[0].found + (f" (and {len(found) - 1} files more)" if len(found) > 1 else "")
        first = same[0]
        result.append(
            Check(first.name, first.success, first.severity, first.expected, text, first.clips, first.hint)
        )
    return result
