"""Clips in two splits: what counts as the same, across data sets, and what becomes of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml

from erv.cues import write_cues
from erv.errors import DataError
from erv.exclusions import Excluded, read_exclusions, without, write_exclusions
from erv.files import sha256_of_file
from erv.leakage.fingerprints import Fingerprint, fingerprint
from erv.leakage.leakage import Leak, exclusions, find_leaks, record, require_none, used
from erv.leakage.similar import matches
from erv.lineage.excluded import left_out
from erv.manifest import ClipRow, read_table, write_manifest
from erv.media.decode import DecodeRule, decode
from erv.settings import LeakageSettings, RolesSettings, load_settings
from erv.shards import Clip, ShardWriter
from erv.training_sets import hash_of_rows, training_rows
from tests.support.paths import ROOT

SETTINGS = load_settings(ROOT / "params.yaml").leakage
ROLES = RolesSettings(cold_start="reasoning", train=("mafw", "dfew"), test=("mafw", "dfew"))
RULE = DecodeRule(frames=8, size=64, geometry="stretch", sample_rate=16000)


def row(clip: str, split: str, content: str = "", uri: str = "") -> ClipRow:
    dataset, _, clip_id = clip.partition("/")
    fold = 0 if dataset == "reasoning" else 1
    digest = (content or clip).encode().hex().ljust(64, "0")[:64]
    completion = "<think>Joy.</think>\n<answer>anger</answer>" if dataset == "reasoning" else None
    where = uri or f"s3://raw/{clip}.mp4"
    return ClipRow(
        clip_id, dataset, fold, split, "anger", "anger", None, completion, "video", where, 1, digest,
        "labels", "splits", None,
    )  # fmt: skip


def leaks_of(*rows: ClipRow, prints: dict[str, Fingerprint] | None = None, **changes: Any) -> list[Leak]:
    manifests: dict[str, list[ClipRow]] = {}
    for item in rows:
        manifests.setdefault(item.dataset, []).append(item)
    found = prints or {}
    return find_leaks(
        used(manifests, ROLES),
        lambda item: found.get(f"{item.dataset}/{item.clip_id}"),
        SETTINGS.model_copy(update=changes),
    )


def recoded(
    source: Path, target: Path, *, scale: float = 1.0, first: int = 0, last: int = 0, gain: float = 1.0,
    sound: bool = True,
) -> Path:  # fmt: skip
    """A worse copy of a clip: smaller, without some first and last frames, quieter."""
    with av.open(str(source)) as clip:
        rate = clip.streams.video[0].average_rate
        pictures = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    with av.open(str(source)) as clip:
        mono = av.AudioResampler("s16", "mono", 16000)
        heard = np.concatenate(
            [part.to_ndarray()[0] for frame in clip.decode(audio=0) for part in mono.resample(frame)]
        )
    per_frame = 16000 / float(rate)
    heard = heard[round(first * per_frame) : round((len(pictures) - last) * per_frame)]
    heard = (heard * gain).astype(np.int16)
    pictures = pictures[first : len(pictures) - last]
    height, width = (round(side * scale) // 2 * 2 for side in pictures[0].shape[:2])
    with av.open(str(target), "w") as out:
        video = out.add_stream("libx264", rate=rate, options={"crf": "33", "x264-params": "threads=1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        track = out.add_stream("aac", rate=44100, layout="mono") if sound else None
        for pixels in pictures:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(width, height)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if track is not None:
            track.bit_rate = 32000
            chunk = av.AudioFrame.from_ndarray(heard[None], format="s16", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = 16000, 0, Fraction(1, 16000)
            out.mux(track.encode(chunk))
            out.mux(track.encode(None))
    return target


def decoded(path: Path, clip_id: str = "x") -> Clip:
    found = decode(path, RULE)
    silent = found.audio is None
    audio = np.zeros(0, np.int16) if found.audio is None else found.audio
    return Clip(clip_id, found.frames, audio, RULE.sample_rate, not silent)


@pytest.fixture(scope="module")
def clips(corpus: Path) -> list[Path]:
    return sorted(corpus.rglob("*.mp4"))


@pytest.fixture(scope="module")
def prints(clips: list[Path]) -> list[Fingerprint]:
    return [fingerprint(decoded(path)) for path in clips]


# --- what a clip is used for, and equal content ---


def test_every_clip_has_the_use_of_its_split_and_role() -> None:
    rows = [row(f"{name}/{split}", split) for name in ("mafw", "reasoning", "ravdess")
            for split in ("train", "validation", "test")]  # fmt: skip
    manifests = {name: [item for item in rows if item.dataset == name] for name in ("mafw", "reasoning")}
    found = {use: [f"{item.dataset}/{item.clip_id}" for item in items]
             for use, items in used(manifests, ROLES).items()}  # fmt: skip
    assert found == {
        "train": ["mafw/train", "reasoning/train", "reasoning/validation", "reasoning/test"],
        "validation": ["mafw/validation"],
        "test": ["mafw/test"],
    }
    only_tested = RolesSettings(cold_start="reasoning", train=("mafw",), test=("ravdess",))
    manifests = {"mafw": rows[:3], "ravdess": rows[6:]}
    found = {use: [item.dataset for item in items] for use, items in used(manifests, only_tested).items()}
    assert found == {"train": ["mafw"], "validation": ["mafw", "ravdess"], "test": ["ravdess"]}


@pytest.mark.parametrize(
    ("one", "other", "at_fault"),
    [
        (("reasoning/9", "train"), ("mafw/1", "test"), "reasoning/9"),
        (("mafw/1", "test"), ("dfew/1", "train"), "dfew/1"),
        (("dfew/1", "validation"), ("mafw/1", "test"), "dfew/1"),
        (("mafw/1", "train"), ("dfew/2", "validation"), "mafw/1"),
        (("mafw/1", "train"), ("reasoning/2", "train"), None),  # both are trained on
        (("mafw/1", "test"), ("dfew/2", "test"), None),
    ],
)
def test_the_same_bytes_under_two_names(one: Any, other: Any, at_fault: str | None) -> None:
    found = leaks_of(row(*one, content="same"), row(*other, content="same"), row("mafw/7", "test"))
    assert [f"{leak.clip.dataset}/{leak.clip.clip_id}" for leak in found] == ([at_fault] if at_fault else [])
    assert all(leak.alike == "same content" for leak in found)


def test_a_clip_is_named_once_with_the_test_clip_before_the_validation_clip() -> None:
    rows = [row("mafw/1", "test", "a"), row("dfew/1", "validation", "a"), row("reasoning/1", "train", "a")]
    found = {leak.clip.dataset: leak.twin.dataset for leak in leaks_of(*rows)}
    assert found == {"dfew": "mafw", "reasoning": "mafw"}


def test_the_error_names_both_clips_their_files_and_the_switch() -> None:
    found = leaks_of(row("reasoning/s1", "train", "a"), row("mafw/00019", "test", "a"))
    with pytest.raises(DataError) as caught:
        require_none(found, SETTINGS, ROLES)
    assert str(caught.value) == (
        "1 clip is in two splits: reasoning/s1 (train, s3://raw/reasoning/s1.mp4) = mafw/00019 (test,"
        " s3://raw/mafw/00019.mp4): same content; data/leakage.json lists all. Take one of each pair out of"
        " its source and pin it again; or set leakage.action to exclude, which leaves out the clip that is"
        " trained or tuned on, or to warn"
    )
    for action in ("warn", "exclude"):
        require_none(found, SETTINGS.model_copy(update={"action": action}), ROLES)


def test_only_exclude_leaves_out_and_never_a_test_clip(tmp_path: Path) -> None:
    rows = [row("mafw/1", "test", "a"), row("dfew/1", "train", "a"), row("dfew/2", "train")]
    found = leaks_of(*rows)
    assert exclusions(found, SETTINGS, ROLES) == []
    excluding = SETTINGS.model_copy(update={"action": "exclude"})
    out = exclusions(found, excluding, ROLES)
    assert record(used({"mafw": rows[:1], "dfew": rows[1:]}, ROLES), found, excluding, ROLES)["excluded"] == 1
    write_exclusions(out, tmp_path / "exclusions.json")
    kept = read_exclusions(tmp_path / "exclusions.json")
    assert kept == [Excluded("dfew", "1")]
    assert without(rows, kept) == [rows[0], rows[2]]


def test_other_test_clips_leave_what_training_depends_on_as_it_is(tmp_path: Path) -> None:
    """The list named the twin and its address, and so every training ran again."""
    excluding = SETTINGS.model_copy(update={"action": "exclude"})
    trained = [row("dfew/1", "train", "a"), row("mafw/2", "train", "b"), row("mafw/3", "validation", "c")]
    tests = [
        [row("mafw/1", "test", "a", "s3://raw/mafw/1.mp4"), row("mafw/9", "test", "b")],
        [row("mafw/1", "test", "a", "s3://moved/mafw/1.mp4"), row("mafw/9", "test", "b")],
        # Its twin is another clip, and a clip that is only tuned on has one, too.
        [row("dfew/8", "test", "a"), row("mafw/9", "test", "b"), row("dfew/7", "test", "c")],
    ]
    written, records = [], []
    for tested in tests:
        leaks = leaks_of(*trained, *tested)
        write_exclusions(exclusions(leaks, excluding, ROLES), tmp_path / "exclusions.json")
        written.append((tmp_path / "exclusions.json").read_text())
        records.append(record(used({"mafw": [*trained, *tested]}, ROLES), leaks, excluding, ROLES))
    assert written[0] == written[1] == written[2]
    assert read_exclusions(tmp_path / "exclusions.json") == [Excluded("dfew", "1"), Excluded("mafw", "2")]
    # As many as are in the list; a clip that could be tuned on, and isn't, is counted apart.
    assert [(found["excluded"], found["unread"]) for found in records] == [(2, 0), (2, 0), (2, 1)]
    assert [left_out(found)["dfew", "1"] for found in records] == [
        "same content as mafw/1 (test, s3://raw/mafw/1.mp4)",
        "same content as mafw/1 (test, s3://moved/mafw/1.mp4)",
        "same content as dfew/8 (test, s3://raw/dfew/8.mp4)",
    ]
    assert left_out(records[2])["mafw", "3"] == "same content as dfew/7 (test, s3://raw/dfew/7.mp4)"


def test_validation_clips_of_the_cold_start_are_left_out_of_training() -> None:
    roles = RolesSettings(cold_start="reasoning", train=("reasoning",), test=("mafw",))
    clips = used(
        {"reasoning": [row("reasoning/1", "validation", "a")], "mafw": [row("mafw/1", "test", "a")]}, roles
    )
    found = find_leaks(clips, lambda _: None, SETTINGS)
    excluding = SETTINGS.model_copy(update={"action": "exclude"})
    assert exclusions(found, excluding, roles) == [Excluded("reasoning", "1")]


def test_a_list_of_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.json"
    path.write_text(
        '{"excluded": [{"dataset": "dfew", "clip_id": "1", "split": "train", "because": "like x"}]}'
    )
    assert read_exclusions(path) == [Excluded("dfew", "1")]


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exclusions.json"
    path.write_text('{"excluded": [{"clip": 1}]}')
    with pytest.raises(DataError, match="not what leakage writes; run `dvc repro leakage` again"):
        read_exclusions(path)


# --- what looks and sounds the same ---


def test_different_clips_of_the_sample_corpus_are_not_the_same(prints: list[Fingerprint]) -> None:
    half = len(prints) // 2
    assert all(item.frames is not None and item.sound is not None for item in prints)
    assert list(matches(prints[:half], prints[half:], SETTINGS)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": 0.5},
        {"scale": 2.0},
        {"scale": 0.7, "first": 2, "last": 1, "gain": 0.6},
        {"scale": 0.7, "sound": False},
    ],
    ids=["half", "double", "trimmed", "without sound"],
)
def test_a_recoded_copy_is_the_same(
    clips: list[Path], prints: list[Fingerprint], tmp_path: Path, changes: dict[str, Any]
) -> None:
    chosen = range(0, len(clips), 9)
    copies = [
        fingerprint(decoded(recoded(clips[index], tmp_path / f"{index}.mp4", **changes))) for index in chosen
    ]
    found = {(match.one, match.other) for match in matches(copies, prints, SETTINGS)}
    assert found == set(enumerate(chosen))


def test_without_sound_the_frames_must_agree_more_closely(prints: list[Fingerprint]) -> None:
    first = prints[0]
    assert first.frames is not None
    noise = np.random.default_rng(0).standard_normal(first.frames.size).astype(np.float32)
    vector = first.frames + 0.2 * noise / np.linalg.norm(noise)
    near = Fingerprint(vector / np.linalg.norm(vector), first.sound)
    (match,) = matches([first], [near], SETTINGS)
    assert SETTINGS.frames < match.frames < SETTINGS.frames_alone
    silent = dataclasses.replace(near, sound=None)
    assert list(matches([first], [silent], SETTINGS)) == []
    assert len(list(matches([first], [dataclasses.replace(first, sound=None)], SETTINGS))) == 1


def test_the_sound_must_agree_too(prints: list[Fingerprint]) -> None:
    dubbed = Fingerprint(prints[0].frames, prints[1].sound)
    assert list(matches([dubbed], prints[:1], SETTINGS)) == []


def test_black_frames_and_silence_have_nothing_to_compare() -> None:
    black = Clip("a", np.zeros((8, 64, 64, 3), np.uint8), np.zeros(16000, np.int16), 16000)
    assert fingerprint(black) == Fingerprint(None, None)
    assert list(matches([fingerprint(black)], [fingerprint(black)], SETTINGS)) == []
    tone = np.sin(np.arange(32000) * 0.2) * 8000
    assert fingerprint(dataclasses.replace(black, audio=tone.astype(np.int16))).sound is None


def test_other_numbers_of_frames_are_refused(prints: list[Fingerprint]) -> None:
    assert prints[0].frames is not None
    shorter = Fingerprint(prints[0].frames[: 4 * 256], prints[0].sound)
    with pytest.raises(DataError, match="different numbers of frames; run extract again"):
        list(matches([shorter], prints, SETTINGS))


def test_a_recoded_copy_across_data_sets_is_found_once(
    clips: list[Path], prints: list[Fingerprint], tmp_path: Path
) -> None:
    copy = fingerprint(decoded(recoded(clips[3], tmp_path / "copy.mp4", scale=0.6)))
    rows = [row("mafw/1", "test"), row("mafw/2", "test"), row("reasoning/1", "train")]
    shown = {"mafw/1": prints[3], "mafw/2": prints[4], "reasoning/1": copy}
    (leak,) = leaks_of(*rows, prints=shown)
    assert (leak.clip.clip_id, leak.twin.clip_id, leak.use, leak.twin_use) == ("1", "1", "train", "test")
    assert leak.alike.startswith("same frames (0.99")
    assert leaks_of(*rows, prints=shown, sound=1.0) == []


def test_thousands_of_clips_take_seconds() -> None:
    """2,000 against 6,000: a twelfth of the work for MAFW and DFEW together."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((8000, 2048), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = [Fingerprint(vector, None) for vector in vectors]
    started = time.monotonic()
    found = list(matches(made[:2000], [*made[2000:], made[7]], SETTINGS))
    assert [(match.one, match.other) for match in found] == [(7, 6000)]
    assert time.monotonic() - started < 20.0


# --- the stage ---


@pytest.fixture(scope="module")
def workspace(corpus: Path, clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three data sets of three clips; one explained clip is a recoded copy of a test clip."""
    folder = tmp_path_factory.mktemp("leak")
    copy = recoded(clips[0], folder / "copy.mp4", scale=0.8)
    sources = {
        "mafw": {"m1": (clips[0], "test"), "m2": (clips[1], "train"), "m3": (clips[2], "validation")},
        "dfew": {"d1": (clips[3], "test"), "d2": (clips[4], "train"), "d3": (clips[4], "train")},
        "reasoning": {"r1": (copy, "train"), "r2": (clips[5], "train"), "r3": (clips[6], "train")},
    }
    for name, items in sources.items():
        rows = []
        with ShardWriter(folder / "shards" / name, clips_per_shard=8) as writer:
            for clip_id, (path, split) in items.items():
                writer.add(decoded(path, clip_id))
                made = row(f"{name}/{clip_id}", split)
                rows.append(dataclasses.replace(made, sha256=sha256_of_file(path), uri=path.name))
        write_manifest(rows, folder / "manifest" / f"{name}.parquet")
        (folder / "cues").mkdir(exist_ok=True)
        write_cues([], folder / "cues" / f"{name}.parquet")
    # Left over from another run, and of another fold: it must not be read.
    (folder / "manifest" / "old.parquet").write_bytes(b"no parquet")
    return folder


def run_stage(folder: Path, action: str, **ingest: Any) -> subprocess.CompletedProcess[str]:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["leakage"]["action"] = action
    params["ingest"] |= ingest
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    words = ["--manifests", "manifest", "--shards", "shards", "--cues", "cues"]
    words += ["--record", "out/leakage.json"]
    words += ["--training-sets", "out/training_sets.json"]
    return subprocess.run(
        [sys.executable, "-m", "stages.leakage", *words, "--exclusions", "out/exclusions.json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_stage_fails_names_the_clips_and_keeps_the_record(workspace: Path) -> None:
    failed = run_stage(workspace, "fail")
    assert failed.returncode == 1
    said = failed.stderr.splitlines()[-1]
    assert said.startswith(
        "error: leakage: 1 clip is in two splits: reasoning/r1 (train, copy.mp4) = mafw/m1"
    )
    found = json.loads((workspace / "out" / "leakage.json").read_text())
    assert found["clips"] == {"train": 6, "validation": 1, "test": 2}
    assert (found["same_content"], found["same_look"], found["excluded"]) == (0, 1, 0)
    assert [(item["clip"], item["twin"]) for item in found["found"]] == [("reasoning/r1", "mafw/m1")]


def test_the_stage_excludes_with_a_record(workspace: Path) -> None:
    done = run_stage(workspace, "exclude")
    assert done.returncode == 0, done.stderr
    assert "left out of training: reasoning/r1" in done.stderr
    trained = json.loads((workspace / "out" / "training_sets.json").read_text())["training_sets"]
    assert list(trained) == ["mafw", "dfew"]
    rows = training_rows(read_table(workspace / "manifest" / "mafw.parquet"))
    assert [row["clip_id"] for row in rows] == ["m2"]
    assert trained["mafw"]["rows"] == hash_of_rows(rows)
    (out,) = read_exclusions(workspace / "out" / "exclusions.json")
    assert out == Excluded("reasoning", "r1")
    assert json.loads((workspace / "out" / "leakage.json").read_text())["excluded"] == 1


def test_the_stage_refuses_another_fold(workspace: Path) -> None:
    failed = run_stage(workspace, "fail", fold=2)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].endswith(
        "is of fold 1, but ingest.fold is 2; run `dvc repro ingest@mafw` again"
    )


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"frames_alone \(0.9\) must not be smaller than frames \(0.95\)"):
        LeakageSettings(action="fail", frames=0.95, sound=0.9, frames_alone=0.9)
