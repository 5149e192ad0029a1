"""Trees with the exact layouts and encodings of the official data sets, of any size up to the published one.

Every clip's content comes from `clip(index)`; the default writes a few bytes. `sign` makes copies of one MP4
differ. Trees can be nested, zipped as delivered, and in every layout that occurs.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erv.ingest.published import published_counts
from erv.labels import LabelSpace
from erv.settings.ingest import DfewReader, MafwReader

Content = Callable[[int], bytes]
FOLDS = range(1, 6)

MAFW = MafwReader(reader="mafw", set="single", listing="no_caption")
DFEW = DfewReader(reader="dfew", media="original")
MAFW_CLIPS, MAFW_MULTI, DFEW_CLIPS = 10_045, 4_058, 16_372


def fake(index: int) -> bytes:
    """A clip that nothing can decode."""
    return b"clip %d" % index


def sign(mp4: bytes, index: int) -> bytes:
    """The same MP4 followed by a `free` box: other bytes, the same pictures and sound."""
    return mp4 + struct.pack(">I4sQ", 16, b"free", index)


def full_mafw(root: Path, clip: Content = fake) -> None:
    """MAFW with its published counts: 10,045 clips, 9,172 in the single set, 8,996 in the compound set."""
    write_mafw(root, 1.0, clip)


def full_dfew(root: Path, clip: Content = fake) -> None:
    """DFEW with its published counts: 16,372 clips, 11,697 of them listed."""
    write_dfew(root, 1.0, clip)


def write_mafw(
    root: Path,
    share: float = 1.0,
    clip: Content = fake,
    *,
    clips: str = "data/clips",
    zipped: bool = False,
    compound: bool = True,
    captioned: bool = True,
    sheets: bool = True,
    underscores: bool = False,
    newline: str = "\r\n",
) -> None:
    """Writes MAFW's tree.

    Args:
        root: the folder to write it into.
        share: of the published counts of each class; at least two clips of each.
        clip: content of a clip by its index.
        clips: folder of the clips.
        zipped: put the clips in `clips.zip`, under one top folder, instead of files.
        compound: include the compound set.
        captioned: include the captioned lists.
        sheets: include `Labels/*.xlsx`.
        underscores: name the sheets as in the README's picture.
        newline: line ending of the lists.
    """
    space, joined = LabelSpace.load("mafw"), LabelSpace.load("mafw_compound")
    single = [label for label, count in _classes(MAFW, share).items() for _ in range(count)]
    single = single[::2] + single[1::2]  # neighbours get different folds and labels
    total = len(single) + _scaled(MAFW_CLIPS - 9_172, share)
    ids = [f"{19 + i * 20_079 // max(MAFW_CLIPS - 1, 1):05d}" for i in range(total)]
    labels = dict(zip(ids, single, strict=False))
    multi = _compound(labels, joined, _scaled(MAFW_MULTI, share)) if compound else {}
    plain = [clip_id for clip_id in labels if clip_id not in multi]
    spare = len(labels) - _scaled(8_996, share)  # single-labelled clips that are not in the compound set
    spared = [clip_id for clip_id in plain if labels[clip_id] != "neutral"][
        :: max(1, len(plain) // 2 // max(spare, 1))
    ]
    left_out = set(spared[: max(spare, 0)])
    both = {
        clip_id: multi.get(clip_id, label) for clip_id, label in labels.items() if clip_id not in left_out
    }
    captions = {
        clip_id: (
            f"一个人{index}看起来很惊讶，睁大眼睛。",
            f"Person {index} opens the eyes – wide, surprised.",
        )
        for index, (clip_id, label) in enumerate(labels.items())
        if label != "neutral"
    }
    tested = _tested(labels, _quotas(MAFW, len(labels)))
    for name, chosen in (("single", labels), *((("compound", both),) if compound else ())):
        for fold, split in itertools.product(FOLDS, ("train", "test")):
            folder = root / "Train & Test Set" / name
            lines = [c for c in chosen if (tested[c] == fold) == (split == "test")]
            text = "".join(f"{c}.mp4 {chosen[c]}{newline}" for c in lines)
            _write(folder / "no_caption" / f"set_{fold}" / f"{split}.txt", text.encode())
            if captioned:
                captioned_lines = [(f"{c}.mp4", chosen[c], *captions[c]) for c in lines if c in captions]
                text = "".join("\t".join(line) + newline for line in captioned_lines)
                _write(folder / "with_caption" / f"set_{fold}" / f"{split}.txt", text.encode("gb18030"))
    if sheets:
        mark = "_" if underscores else "-"
        folder, names = root / "Labels", space.names
        votes = {c: [float(name == labels.get(c)) for name in names] for c in ids}
        rows = [[f"{c}.mp4", 0 if c in labels else -1, *votes[c]] for c in ids]
        write_xlsx(folder / "annotation.xlsx", [["clip", "invalid", *names], *rows])
        rows = [[f"{c}.mp4", *votes[c], space.ids[label]] for c, label in labels.items()]
        write_xlsx(folder / f"single{mark}set.xlsx", [["clip", *names, "single_label"], *rows])
        rows = [
            [f"{c}.mp4", *votes[c], ",".join(str(space.ids[part]) for part in label.split("_"))]
            for c, label in multi.items()
        ]
        if compound:
            write_xlsx(folder / f"multi{mark}set.xlsx", [["clip", *names, "multi_label"], *rows])
        rows = [[f"{c}.mp4", *texts] for c, texts in captions.items()]
        write_xlsx(folder / "descriptive_text.xlsx", rows)
    with _media(root / clips, zipped) as put:
        for index, clip_id in enumerate(ids):
            put(f"{clip_id}.mp4", clip(index))


def write_dfew(
    root: Path,
    share: float = 1.0,
    clip: Content = fake,
    *,
    layout: str = "A",
    media: Sequence[str] = ("original",),
    zipped: bool = False,
    annotation: bool = True,
    images: int = 2,
) -> None:
    """Writes DFEW's tree.

    Args:
        root: the folder to write it into.
        share: of the published counts of each class; at least two clips of each.
        clip: content of a clip by its index; for frames, of each image.
        layout: A (`EmoLabel_DataSplit`, `Clip/..`) or B (`label/single_..`, `clip/` or frames in `data/`).
        media: some of original, avi, frames, frames_16.
        zipped: put each kind of media in a zip of its folder.
        annotation: include `Annotation/annotation.xlsx`.
        images: number of images in a folder of frames.
    """
    space = LabelSpace.load("dfew")
    singles = [label for label, count in _classes(DFEW, share).items() for _ in range(count)]
    singles = singles[::2] + singles[1::2]
    total = len(singles) + _scaled(DFEW_CLIPS - 11_697, share)
    orders = [1 + index * total // len(singles) for index in range(len(singles))]
    labels = dict(zip(orders, singles, strict=True))
    tested = _tested(labels, _quotas(DFEW, len(labels)))
    for fold, split in itertools.product(FOLDS, ("train", "test")):
        lines = [
            f"{order},{space.ids[label]}\n"
            for order, label in labels.items()
            if (tested[order] == fold) == (split == "test")
        ]
        path = (
            root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
            if layout == "A"
            else root / "label" / f"single_{split}set_{fold}.csv"
        )
        _write(path, ("video_name,label\n" + "".join(lines)).encode())
    if annotation:
        header = [*(f"{label_id}{name}" for name, label_id in space.ids.items()), "order", "label"]
        rows = [
            [
                *(10 * (label == labels.get(order)) for label in space.names),
                order,
                space.ids[labels[order]] if order in labels else 0,
            ]
            for order in range(1, total + 1)
        ]
        write_xlsx(root / "Annotation" / "annotation.xlsx", [header, *rows])
    folders = {
        "original": "Clip/original" if layout == "A" else "clip",
        "avi": "Clip/clip_224x224_avi",
        "frames": "Clip/clip_224x224" if layout == "A" else "data",
        "frames_16": "Clip/clip_224x224_16f",
    }
    for kind in media:
        with _media(root / folders[kind], zipped) as put:
            for order in range(1, total + 1):
                if kind == "original":
                    put(f"{order}.mp4", clip(order - 1))
                elif kind == "avi":
                    put(f"{order:05d}.avi", clip(order - 1))
                else:
                    for image in range(1, images + 1):
                        name = f"{image}.jpg" if kind == "frames_16" else f"{order:05d}_{image:05d}.jpg"
                        put(f"{order:05d}/{name}", clip(order - 1) + b"%d" % image)


def ravdess_names(
    channel: str = "01", modality: str = "01", actors: Sequence[int] = range(1, 25)
) -> list[str]:
    """Stems of RAVDESS's files; actor 18 did not sing."""
    emotions = range(1, 9) if channel == "01" else range(1, 7)
    return [
        f"{modality}-{channel}-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for actor in actors
        if channel == "01" or actor != 18
        for emotion in emotions
        for intensity in ((1,) if emotion == 1 else (1, 2))
        for statement in (1, 2)
        for repetition in (1, 2)
    ]


def write_ravdess(
    root: Path,
    clip: Content = fake,
    *,
    channels: Sequence[str] = ("01", "02"),
    actors: Sequence[int] = range(1, 25),
    shape: str = "folders",
    silent: bool = True,
) -> None:
    """Writes RAVDESS's tree.

    Args:
        root: the folder to write it into.
        clip: content of a clip by its index.
        channels: 01 speech, 02 song.
        actors: numbers of the actors.
        shape: folders (`Actor_NN/`), flat, or zips (`Video_Speech_Actor_NN.zip`).
        silent: include the video without sound (02) and the sound alone (03).
    """
    index = itertools.count()
    for channel, actor in itertools.product(channels, actors):
        stems = [f"{stem}.mp4" for stem in ravdess_names(channel, "01", [actor])]
        if silent:
            stems += [f"{stem}.mp4" for stem in ravdess_names(channel, "02", [actor])]
            stems += [f"{stem}.wav" for stem in ravdess_names(channel, "03", [actor])]
        if not stems:
            continue
        if shape == "zips":
            kind = "Speech" if channel == "01" else "Song"
            (root).mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(root / f"Video_{kind}_Actor_{actor:02d}.zip", "w") as archive:
                for name in stems:
                    archive.writestr(zipfile.ZipInfo(f"Actor_{actor:02d}/{name}"), clip(next(index)))
            continue
        folder = root if shape == "flat" else root / f"Actor_{actor:02d}"
        for name in stems:
            _write(folder / name, clip(next(index)))


def write_videos(folder: Path, names: Sequence[str], suffix: str = ".mp4", clip: Content = fake) -> None:
    """Writes videos of a reasoning set."""
    for index, name in enumerate(names):
        _write(folder / f"{name}{suffix}", clip(index))


def write_json(path: Path, document: Any) -> None:
    """Writes a JSON document as reasoning sets have it."""
    _write(path, json.dumps(document, ensure_ascii=False, indent=1).encode())


def write_xlsx(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Writes a workbook of one sheet."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    for row in rows:
        sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    _write(path, buffer.getvalue())


def _classes(settings: MafwReader | DfewReader, share: float) -> dict[str, int]:
    known = published_counts(settings)
    assert known is not None
    return {label: _scaled(count, share) for label, count in known.classes.items()}


def _scaled(count: int, share: float) -> int:
    return count if share == 1.0 else max(2, round(count * share))


def _quotas(settings: MafwReader | DfewReader, clips: int) -> dict[int, int]:
    """Number of test clips in each fold: as published, or as even as possible."""
    known = published_counts(settings)
    assert known is not None
    if clips == known.clips:
        return {fold: splits["test"] for fold, splits in known.folds.items()}
    return {fold: clips // 5 + (fold <= clips % 5) for fold in FOLDS}


def _tested(clips: Mapping[Any, str], quotas: dict[int, int]) -> dict[Any, int]:
    """The fold with each clip in its test split: in turn within each label, until a fold is full."""
    left = dict(quotas)
    turn = itertools.cycle(FOLDS)
    tested = {}
    for clip in sorted(clips, key=lambda clip: (clips[clip], clip)):
        tested[clip] = next(fold for fold in turn if left[fold])
        left[tested[clip]] -= 1
    return tested


def _compound(labels: Mapping[str, str], space: LabelSpace, count: int) -> dict[str, str]:
    """A compound label for some clips, one that contains their single label."""
    turns = {
        label: itertools.cycle([name for name in space.names if "_" in name and label in name.split("_")])
        for label in set(labels.values()) - {"neutral"}
    }
    chosen = [clip for clip, label in labels.items() if label != "neutral"][:count]
    return {clip: next(turns[labels[clip]]) for clip in chosen}


@contextmanager
def _media(folder: Path, zipped: bool) -> Iterator[Callable[[str, bytes], None]]:
    """Writes files into a folder, or into a zip with that folder at its top."""
    if zipped:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder.with_name(f"{folder.name}.zip"), "w") as archive:
            yield lambda name, content: archive.writestr(zipfile.ZipInfo(f"{folder.name}/{name}"), content)
        return
    made: set[Path] = set()

    def put(name: str, content: bytes) -> None:
        path = folder / name
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(content)

    yield put


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
