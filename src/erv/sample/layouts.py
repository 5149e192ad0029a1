"""The files beside the clips of the sample corpus, in the encodings and formats of the official data sets."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from erv.claims import CUE_WORDINGS
from erv.labels import LabelSpace
from erv.manifest import write_table
from erv.sample.clips import ClipCues
from erv.sample.wordings import Sentence

MARK = "SAMPLE.txt"  # in the trees without cues.parquet; a user's own tree has neither
_FOLDS = range(1, 6)
_CHINESE = {
    "anger": "一个人皱着眉头，瞪着眼睛，看起来很生气。",
    "disgust": "一个人皱着鼻子，撅起上唇，感到厌恶。",
    "fear": "一个人睁大眼睛，声音颤抖，感到害怕。",
    "happiness": "一个人嘴角上扬，面带微笑，非常高兴。",
    "sadness": "一个人眉头上挑，嘴角下垂，十分悲伤。",
    "surprise": "一个人睁大眼睛，张开嘴巴，非常惊讶。",
    "contempt": "一个人一侧嘴角上扬，露出轻蔑的神情。",
    "anxiety": "一个人面无表情，声音颤抖，显得焦虑。",
    "helplessness": "一个人眉头上挑，声音微弱，感到无助。",
    "disappointment": "一个人低垂目光，嘴角下垂，感到失望。",
}


@dataclass(frozen=True)
class Item:
    """A clip of a tree: its cues, the fold that tests it and, in the reasoning set, its explanation."""

    cues: ClipCues
    fold: int
    sentences: tuple[Sentence, ...] = ()
    contradicts: bool = False


def write_mafw(root: Path, items: Sequence[Item], rng: np.random.Generator) -> None:
    """`Labels/*.xlsx` and `Train & Test Set/single/...`; captioned files in GB18030, without neutral."""
    space = LabelSpace.load("mafw")
    names = [f"{item.cues.clip_id}.mp4" for item in items]
    single, annotation = [], []
    for item, name in zip(items, names, strict=True):
        votes = _votes(space.names, item.cues.emotion, rng)
        annotation.append([name, 0, *votes])
        single.append([name, *votes, space.ids[item.cues.emotion]])
    captions = {
        item.cues.clip_id: (_CHINESE[item.cues.emotion], _caption(item.cues))
        for item in items
        if item.cues.emotion != "neutral"
    }
    labels = root / "Labels"
    _write_xlsx(labels / "annotation.xlsx", [["clip", "invalid", *space.names], *annotation])
    _write_xlsx(labels / "single-set.xlsx", [["clip", *space.names, "single_label"], *single])
    texts = [[f"{clip_id}.mp4", *both] for clip_id, both in captions.items()]
    _write_xlsx(labels / "descriptive_text.xlsx", texts)
    for fold in _FOLDS:
        for split in ("train", "test"):
            chosen = [item for item in items if (item.fold == fold) == (split == "test")]
            plain = [f"{item.cues.clip_id}.mp4 {item.cues.emotion}\r\n" for item in chosen]
            captioned = [
                "\t".join((f"{item.cues.clip_id}.mp4", item.cues.emotion, *captions[item.cues.clip_id]))
                + "\r\n"
                for item in chosen
                if item.cues.clip_id in captions
            ]
            folder = root / "Train & Test Set" / "single"
            _write(folder / "no_caption" / f"set_{fold}" / f"{split}.txt", "".join(plain).encode())
            _write(
                folder / "with_caption" / f"set_{fold}" / f"{split}.txt", "".join(captioned).encode("gb18030")
            )
    write_cues(root, items)


def write_dfew(root: Path, items: Sequence[Item], rng: np.random.Generator) -> None:
    """`Annotation/annotation.xlsx` and `EmoLabel_DataSplit` of DFEW, layout A."""
    mafw, space = LabelSpace.load("mafw"), LabelSpace.load("dfew")
    labels = {item.cues.clip_id: mafw.to(space)(item.cues.emotion) or "" for item in items}
    rows: list[list[Any]] = [[*(f"{space.ids[name]}{name}" for name in space.names), "order", "label"]]
    for item in items:
        label = labels[item.cues.clip_id]
        counts = [round(10 * share) for share in _votes(space.names, label, rng)]
        rows.append([*counts, int(item.cues.clip_id), space.ids[label]])
    _write_xlsx(root / "Annotation" / "annotation.xlsx", rows)
    for fold in _FOLDS:
        for split in ("train", "test"):
            lines = [
                f"{item.cues.clip_id},{space.ids[labels[item.cues.clip_id]]}\n"
                for item in items
                if (item.fold == fold) == (split == "test")
            ]
            path = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold}.csv"
            _write(path, ("video_name,label\n" + "".join(lines)).encode())
    write_cues(root, items)


def write_reasoning(root: Path, items: Sequence[Item], rng: np.random.Generator) -> None:
    """`EMER.csv` as in EMER v1, and `sentence_labels.csv` with the emotions that each sentence expresses."""
    rows = [["names", "emotions", "subtitles", "reasons"]]
    sentences = [["name", "index", "sentence", "labels"]]
    for item in items:
        reasons = " ".join(text for text, _ in item.sentences)
        rows.append([item.cues.clip_id, item.cues.emotion, "", reasons])
        for index, (text, labels) in enumerate(item.sentences):
            sentences.append([item.cues.clip_id, str(index), text, ";".join(labels)])
    _write(root / "EMER.csv", _csv(rows))
    _write(root / "sentence_labels.csv", _csv(sentences))
    write_cues(root, items, contradicts=True)


def write_sentences(root: Path, sentences: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """`sentences.csv`: labelled sentences without a clip."""
    rows = [[text, ";".join(labels)] for text, labels in sentences]
    _write(root / "sentences.csv", _csv([["sentence", "labels"], *rows]))


def write_judge(root: Path, texts: Sequence[tuple[str, str]]) -> None:
    """`texts.csv`: explanations in the wordings of family b with their emotion."""
    _write(root / "texts.csv", _csv([["text", "label"], *map(list, texts)]))


def write_mark(root: Path) -> None:
    """`SAMPLE.txt`: marks a tree of the sample corpus, so that an upload never replaces a user's own tree."""
    _write(
        root / MARK, b"This tree belongs to the sample corpus of erv; an upload of the sample replaces it.\n"
    )


def write_cues(root: Path, items: Sequence[Item], *, contradicts: bool = False) -> None:
    """`cues.parquet`: what each clip really shows and, on request, whether its explanation contradicts it."""
    schema = pa.schema(
        [
            ("clip_id", pa.string()),
            ("emotion", pa.string()),
            ("action_units", pa.list_(pa.int32())),
            ("face_cues", pa.list_(pa.string())),
            ("voice_cues", pa.list_(pa.string())),
            ("channel", pa.string()),
        ]
    )
    rows = [asdict(item.cues) for item in items]
    if contradicts:
        schema = schema.append(pa.field("contradicts", pa.bool_()))
        rows = [{**row, "contradicts": item.contradicts} for row, item in zip(rows, items, strict=True)]
    rows.sort(key=lambda row: row["clip_id"])
    write_table(pa.Table.from_pylist(rows, schema=schema), root / "cues.parquet")


def _votes(names: Sequence[str], label: str, rng: np.random.Generator) -> list[float]:
    """Shares of ten annotators per emotion, with the label in the lead."""
    others = rng.multinomial(int(rng.integers(0, 5)), [1 / len(names)] * len(names))
    counts = {name: int(count) for name, count in zip(names, others, strict=True)}
    counts[label] += 10 - int(others.sum())
    return [counts[name] / 10 for name in names]


def _caption(cues: ClipCues) -> str:
    said = [CUE_WORDINGS[cue][1][0] for cue in (cues.face_cues[0], cues.voice_cues[0])]
    return f"A person with {said[0]} and {said[1]}."


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_xlsx(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    """Writes a sheet without the time stamps that openpyxl and zip add."""
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    for row in rows:
        sheet.append(list(row))
    buffer = io.BytesIO()
    book.save(buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2000-01-01T00:00:00Z", content)
            target.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
