"""Feeds mutated clips to `extract` and to the probing of `validate`, and counts what becomes of them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from erv.extract.extract import Extracted, extract
from erv.sample.clips import encode
from erv.settings import ExtractSettings, ValidateSettings, load_settings
from erv.shards import ShardReader
from erv.sources.selection import Selection
from erv.validate.probes import Probe
from erv.validate.probing import probe_clips
from tests.fuzz.folders import write_folder, write_images
from tests.fuzz.mutations import mutate
from tests.support.clips import CONTAINERS, clip_bytes, movie, numbered_clip, pinned, settings, tone, trimmed

PARAMS = Path(__file__).parents[2] / "params.yaml"
_MEMORY_MB = 600
_SECONDS = 20
_FOLDER_EVERY = 8  # one of eight clips is a frame folder


@dataclass
class Report:
    """What became of the mutations.

    Attributes:
        mutations: number.
        result: counts of `extract`.
        by_kind: kind of mutation -> what became of it -> clips.
        faults: reasons of `validate`'s probing, by kind of reason.
        seconds: of extract, and of probing.
        disagreements: clips that probing finds whole and extract can't decode, or the reverse.
    """

    mutations: int
    result: Extracted
    by_kind: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    faults: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    disagreements: Counter[str] = field(default_factory=Counter)

    @property
    def survived(self) -> dict[str, int]:
        """Crashes, hangs and memory faults that cost a worker process each."""
        counts = {"crashes": 0, "hangs": 0, "out of memory": 0}
        for reason, clips in self.result.reasons.items():
            if reason.startswith(("decoder process died", "decoder exited")):
                counts["crashes"] += clips
            elif reason.startswith("not done within"):
                counts["hangs"] += clips
            elif reason.startswith("needs more than"):
                counts["out of memory"] += clips
        return counts


def whole_clips(seed: int) -> list[bytes]:
    """The mp4 files to mutate, two of them with edit lists that hide pictures."""
    rng = np.random.default_rng(seed)
    clips = [clip_bytes(number) for number in range(3)]
    clips.append(encode(list(rng.integers(0, 255, (12, 64, 64, 3), dtype=np.uint8)), tone(1.0)))
    clips.append(encode(movie(6), None))
    clips.append(trimmed(clip_bytes(3), (0.5, 1.0)))
    clips.append(trimmed(numbered_clip(24, bframes=2), (0.2, 0.3), (0.6, 0.2)))
    return clips


def write_whole(folder: Path, seed: int) -> dict[str, str]:
    """Writes what nothing is wrong with: the clips above, all containers, a frame folder."""
    folder.mkdir(parents=True)
    kinds = {}
    for number, content in enumerate(whole_clips(seed)):
        kinds[f"clip{number:02d}"] = "mp4"
        (folder / f"clip{number:02d}.mp4").write_bytes(content)
    for number, (suffix, form, video, sound) in enumerate(CONTAINERS):
        for name, voice in ((f"container{number:02d}", sound), (f"mute{number:02d}", None)):
            kinds[name] = form
            (folder / f"{name}.{suffix}").write_bytes(numbered_clip(form=form, video=video, sound=voice))
    kinds["folder00"] = "frames"
    write_images(folder / "folder00", np.random.default_rng(seed))
    return dict(sorted(kinds.items()))


def write_mutations(folder: Path, count: int, seed: int) -> dict[str, str]:
    """Writes mutated clips `00000.mp4`, ... and frame folders; returns the kind of each by clip id."""
    folder.mkdir(parents=True)
    clips = whole_clips(seed)
    kinds = {}
    for number in range(count):
        name = f"{number:05d}"
        if number % _FOLDER_EVERY == _FOLDER_EVERY - 1:
            kinds[name] = write_folder(folder / name, number // _FOLDER_EVERY, seed)
        else:
            kinds[name], content = mutate(clips, number, seed)
            (folder / f"{name}.mp4").write_bytes(content)
    return kinds


def fuzz(folder: Path, count: int, seed: int, *, workers: int = 2) -> Report:
    """Runs both stages over mutations in an empty folder; raises as `feed`."""
    return feed(folder, write_mutations(folder / "raw", count, seed), workers=workers)


def feed(folder: Path, kinds: dict[str, str], *, workers: int = 2) -> Report:
    """Runs both stages over the clips in `folder / "raw"`.

    Args:
        folder: for shards and all else.
        kinds: kind of each clip by clip id, sorted.
        workers: processes.

    Raises:
        AssertionError: a clip is neither extracted nor quarantined, or is both, or was not probed.
    """
    count = len(kinds)
    rows, lock = pinned(folder / "raw", selection=Selection(frames=".", aggregate=True))
    rows.sort(key=lambda row: row.clip_id)
    began = time.monotonic()
    probes = probe_clips(rows, lock, None, _validate_settings(), workers=workers)
    probed = time.monotonic()
    result = extract(
        rows,
        lock,
        None,
        _extract_settings(),
        folder / "shards",
        folder / "q.parquet",
        workers=workers,
        state_root=folder / "state",
    )
    done = time.monotonic()
    reasons = {
        row["clip_id"]: row["reason"].partition(":")[0]
        for row in pq.read_table(folder / "q.parquet").to_pylist()
    }
    extracted = set(ShardReader(folder / "shards").clip_ids)
    assert extracted.isdisjoint(reasons)
    assert extracted | set(reasons) == set(kinds)
    assert result.clips == count == result.extracted + result.quarantined
    assert (len(extracted), len(reasons)) == (result.extracted, result.quarantined)
    assert list(probes) == list(kinds)
    report = Report(count, result, seconds={"extract": done - probed, "validate": probed - began})
    for clip_id, kind in kinds.items():
        report.by_kind[kind][reasons.get(clip_id, "extracted")] += 1
        _compare(report, probes[clip_id], clip_id in extracted)
    return report


def _compare(report: Report, probe: Probe, extracted: bool) -> None:
    if probe.fault is not None:
        report.faults[probe.fault.partition(":")[0]] += 1
    if extracted and probe.fault is not None:
        report.disagreements["extracted, though probing finds a fault"] += 1
    elif not extracted and probe.fault is None:
        report.disagreements["quarantined, though probing finds no fault"] += 1


def _extract_settings() -> ExtractSettings:
    return settings(
        clip_timeout_seconds=_SECONDS,
        clip_memory_mb=_MEMORY_MB,
        clips_per_shard=64,
        missing_audio="mark",
        max_quarantine_share=0.9999,
    )


def _validate_settings() -> ValidateSettings:
    changes = {"clip_timeout_seconds": _SECONDS, "clip_memory_mb": _MEMORY_MB}
    return load_settings(PARAMS).validate_.model_copy(update=changes)
