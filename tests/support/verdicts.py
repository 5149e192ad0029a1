"""Manifests and probes of good clips, and their verdict, for tests of validation, plots and report."""

import dataclasses

from erv.labels import LabelSpace
from erv.manifest import ClipRow
from erv.settings import ValidateSettings
from erv.validate.probing import Probe
from erv.validate.validate import validate

SETTINGS = ValidateSettings(
    min_seconds=0.5,
    max_seconds=60.0,
    min_fps=5.0,
    min_side=32,
    min_brightness=8.0,
    min_loudness_db=-60.0,
    max_failed_share=0.1,
    duplicates="fail",
    clip_timeout_seconds=60,
    clip_memory_mb=1000,
)
GOOD = Probe(
    seconds=2.0,
    frames=24,
    fps=12.0,
    width=160,
    height=96,
    has_audio=True,
    audio_seconds=2.0,
    brightness=90.0,
    loudness_db=-20.0,
)
GONE = Probe(fault="container can't be read: nothing there")


def make_row(dataset, index, split, **changes):
    names = LabelSpace.load(dataset).names
    row = ClipRow(
        clip_id=f"{index:05d}",
        dataset=dataset,
        fold=1,
        split=split,
        label=names[index % len(names)],
        raw_label="1",
        caption=None,
        completion=None,
        media="video",
        uri=f"/home/someone/{dataset}/{index:05d}.mp4",
        bytes=1000,
        sha256=f"{index:064x}",
        label_from="labels.txt:1",
        split_from="train.txt:1",
        caption_from=None,
    )
    return dataclasses.replace(row, **changes)


def rows_of(dataset, count=50, splits=("train", "train", "train", "validation", "test"), **changes):
    return [make_row(dataset, index, splits[index % len(splits)], **changes) for index in range(count)]


def judge(rows, probes=None, settings=SETTINGS, docs=None):
    dataset = rows[0].dataset
    checks = {
        "dataset": dataset,
        "labels": LabelSpace.load(dataset).names,
        "counts": {"clips": float(len(rows))},
        "checks": [],
    }
    found = {row.clip_id: GOOD for row in rows} | (probes or {})
    return validate(dataset, rows, found, settings, checks, docs)
