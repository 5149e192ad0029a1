"""Judges by hand, and rows that they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from erv.evaluate.judges.protocol import SILENT, Verdict, placed
from erv.labels import LabelSpace
from erv.sample.encoder import FOLDER, unpack_encoder


def encoder_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The unpacked sentence encoder, once for all processes of a run; not to be changed."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / FOLDER
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            unpack_encoder(folder)
    return folder


@dataclass
class Spoken:
    """A judge that names the first emotion of the MAFW space that the explanation has by name or synonym."""

    name: str = "spoken"
    texts: tuple[str, ...] = ()
    weights: frozenset[str] = field(default_factory=frozenset)

    def judge(self, explanations: Sequence[str | None], space: LabelSpace) -> list[Verdict]:
        mafw = LabelSpace.load("mafw")
        found = [mafw.named_in(text or "") for text in explanations]
        return [placed(mafw.to(space)(names[0])) if names else SILENT for names in found]

    def knows(self, space: LabelSpace) -> tuple[str, ...]:
        return space.names

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "architecture": "words", "digest": "0" * 64}


def read(*said: str | None, clip: str = "1", dataset: str = "mafw", **more: Any) -> dict[str, Any]:
    """A row of the predictions table: what judges a, b, ... say, an emotion or an outcome in brackets."""
    verdicts = [
        {"judge": name, "outcome": text[1:-1], "emotion": None}
        if text.startswith("(")
        else {"judge": name, "outcome": "named", "emotion": text}
        for name, text in zip("abcdefgh", said, strict=False)
        if text is not None
    ]
    row = {
        "dataset": dataset,
        "clip_id": clip,
        "split": "test",
        "label": "anger",
        "completion": "",
        "predicted": "anger",
        "judged": verdicts[0]["emotion"] if verdicts else None,
        "verdicts": verdicts,
        "sentences": 1,
    }
    return row | more
