"""Small whole data sets, one per kind of list, and the rows that they mean."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from erv.ingest.ingest import Ingested, ingest
from erv.ingest.readers.by_name import selection_of
from erv.labels import LabelSpace
from erv.manifest import ClipRow
from erv.pinning import pin
from erv.settings import IngestSettings
from tests.support import trees

_SHARE = 0.002
_CLIPS = 24
_VIDEO = rb"(?i)([\w/]+)\.mp4"
_SAMPLE = rb"(sample_\d+)"


@dataclass(frozen=True)
class ListSet:
    """A data set on disk.

    Attributes:
        name: of the kind of list.
        dataset: name of its label space.
        reader: its settings.
        root: its tree.
        lists: paths of the lists, text or workbooks, below the root.
        clip: finds the clips that a line names: its first group.
        as_id: the clip id that such a group means.
        truth: the rows of the whole set, by clip id.
    """

    name: str
    dataset: str
    reader: Mapping[str, Any]
    root: Path
    lists: tuple[str, ...]
    clip: re.Pattern[bytes]
    as_id: Callable[[str], str]
    truth: dict[str, ClipRow] = field(default_factory=dict)

    def read(self) -> Ingested:
        """Pins and ingests the tree as it is now; raises ErvError."""
        settings = IngestSettings(
            fold=1,
            validation_share=0.0,
            expect="subset",
            max_excluded_share=0.9,
            readers={self.dataset: self.reader},
        )
        lock = pin(self.dataset, str(self.root), None, selection=selection_of(settings.readers[self.dataset]))
        return ingest(self.dataset, lock, None, settings, seed=0)

    def is_table_of_ids(self) -> bool:
        """Whether its labels are numbers."""
        return self.name in ("dfew", "table of ids")


def write_sets(folder: Path) -> list[ListSet]:
    """Writes all sets below an empty folder and reads them."""
    found = [*_official(folder), *_tables(folder), *_explained(folder)]
    for item in found:
        item.truth.update({row.clip_id: row for row in item.read().rows})
        assert item.truth
    return found


def _official(folder: Path) -> list[ListSet]:
    sets = []
    for listing in ("no_caption", "with_caption"):
        root = folder / f"mafw_{listing}"
        trees.write_mafw(root, _SHARE)
        if listing == "no_caption":  # so that captions come from the sheet
            shutil.rmtree(root / "Train & Test Set/single/with_caption")
        shutil.rmtree(root / "Train & Test Set/compound")
        reader = {"reader": "mafw", "set": "single", "listing": listing}
        sets.append(_set(f"mafw {listing}", "mafw", reader, root, rb"(?i)(\d{5})\.mp4"))
    root = folder / "dfew"
    trees.write_dfew(root, _SHARE)
    reader = {"reader": "dfew", "media": "original"}
    sets.append(_set("dfew", "dfew", reader, root, rb"^\D*(\d+)", lambda text: text.lstrip("0") or "0"))
    return sets


def _tables(folder: Path) -> list[ListSet]:
    space = LabelSpace.load("mafw")
    clips = [f"{'sub/' * (number % 3 == 0)}clip{number:02d}" for number in range(_CLIPS)]
    labels = [space.names[number % len(space.names)] for number in range(_CLIPS)]
    splits = ["test" if number % 4 == 0 else "train" for number in range(_CLIPS)]
    texts = [f"Person {number}: “naïve”, 惊讶." for number in range(_CLIPS)]
    named = list(zip([f"{clip}.mp4" for clip in clips], labels, splits, texts, strict=True))
    ids = [(clip, space.ids[label], 1 + index % 5) for index, (clip, label, _, _) in enumerate(named)]
    contents = {
        "table of names": ("clips.csv", _csv(["clip", "label", "split", "text"], named), {"caption": "text"}),
        "table of ids": ("clips.csv", _csv(["clip", "label", "fold"], ids), {}),
        "jsonl": (
            "clips.jsonl",
            "".join(
                json.dumps(
                    dict(zip(("clip", "label", "split", "text"), row, strict=True)), ensure_ascii=False
                )
                + "\n"
                for row in named
            ),
            {"caption": "text"},
        ),
    }
    sets = []
    for name, (table, text, columns) in contents.items():
        root = folder / name.replace(" ", "_")
        trees.write_videos(root, clips)
        (root / table).write_text(text, encoding="utf-8")
        columns = {
            **columns,
            ("fold" if name == "table of ids" else "split"): "fold" if "ids" in name else "split",
        }
        reader = {"reader": "table", "table": table, "columns": columns}
        sets.append(_set(name, "mafw", reader, root, _VIDEO))
    return sets


def _explained(folder: Path) -> list[ListSet]:
    space = LabelSpace.load("mafw")
    names = [f"sample_{number}" for number in range(_CLIPS)]
    labels = [space.names[number % len(space.names)] for number in range(_CLIPS)]
    texts = [f"He “{name}” frowns, naïvely.\nHe shouts: 惊讶!" for name in names]
    both = list(zip(names, labels, texts, strict=True))
    answers = {name: f"<think>{text}</think>\n<answer>{label}</answer>" for name, label, text in both}
    r1 = [
        {"video": f"D:\\data\\{name}.mp4", "conversations": [{"from": "gpt", "value": answers[name]}]}
        for name in names
    ]
    merr = {name: {"pseu_emotion": label, "smp_reason_caption": text} for name, label, text in both}
    files: dict[str, dict[str, str]] = {
        "emer v1": {
            "EMER.csv": _csv(
                ["names", "emotions", "subtitles", "reasons"],
                [(n, label, "a, b", text) for n, label, text in both],
            )
        },
        "emer v2": {
            "gt.csv": _csv(["name", "chinese", "english"], [(n, "愤怒", text) for n, _, text in both]),
            "labels.csv": _csv(["name", "label"], [(n, label) for n, label, _ in both]),
        },
        "r1 omni": {"train.json": _json_lines(r1)},
        "merr": {
            "MERR_fine_grained.json": _json_lines(merr),
            "MERR_fine_grained.txt": "".join(f"{n} 50 {label}\n" for n, label, _ in both),
        },
    }
    sets = []
    for name, contents in files.items():
        root = folder / name.replace(" ", "_")
        trees.write_videos(root / "video", names)
        for file, text in contents.items():
            (root / file).write_text(text, encoding="utf-8")
        sets.append(_set(name, "reasoning", {"reader": "reasoning"}, root, _SAMPLE))
    return sets


def _set(
    name: str,
    dataset: str,
    reader: Mapping[str, Any],
    root: Path,
    clip: bytes,
    as_id: Callable[[str], str] = str,
) -> ListSet:
    files = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*.*")) if path.is_file())
    lists = tuple(path for path in files if not path.endswith(".mp4"))
    return ListSet(name, dataset, reader, root, lists, re.compile(clip), as_id)


def _csv(header: list[str], rows: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def _json_lines(document: Any) -> str:
    """JSON with an item in each line."""
    if isinstance(document, list):
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in document) + "\n]\n"
    items = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items())
    return "{\n" + ",\n".join(items) + "\n}\n"
