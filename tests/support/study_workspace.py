"""A workspace with evaluated policies, from which studies can be made."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from erv.evaluate.evaluate import write_predictions
from erv.files import content_digest
from erv.manifest import write_manifest
from erv.sample.clips import draw_cues, render_clip, stream
from tests.support.clips import clip_bytes, pinned
from tests.support.paths import ROOT
from tests.support.reports import verdict

EMOTIONS = ("anger", "happiness", "sadness", "surprise")
POLICIES = ("sft", "r1_omni", "erv")
SEEN = {
    "anger": "The brows are drawn together and lowered.",
    "happiness": "A broad smile spreads over the face.",
    "sadness": "The corners of the mouth pull down.",
    "surprise": "Both brows shoot up and the jaw drops.",
}
HEARD = {
    "anger": "The voice is loud and harsh, as if ready to shout.",
    "happiness": "The tone is bright and lively, as if hearing good news.",
    "sadness": "The words come slowly and low, close to tears.",
    "surprise": "The pitch rises steeply at the end of the sentence.",
}
STUDY: dict[str, Any] = {
    "policies": ["sft", "erv"],
    "clips": 8,
    "items_per_rater": 6,
    "overlap": 3,
    "rating_overlap": 2,
    "practice": 2,
    "attention": 2,
    "gold": 2,
}


def emotion_of(number: int) -> str:
    return EMOTIONS[number % len(EMOTIONS)]


def face(number: int) -> bytes:
    """A clip of the sample corpus."""
    name = f"{number:05d}"
    return render_clip(draw_cues(name, emotion_of(number), stream(7, name)), stream(8, name))


def bars(number: int) -> bytes:
    """One of four plain clips, which take no time to make; its number makes its bytes its own."""
    return clip_bytes(number % 4) + b"\0\0\0\x0cfree" + number.to_bytes(4, "big")


def prediction(policy: str, clip_id: str, sha256: str) -> dict[str, Any]:
    """What a policy says: erv is right, sft right on two clips of three, and judges split on every fifth."""
    number = int(clip_id)
    label = emotion_of(number)
    answer = label if policy != "sft" or number % 3 else EMOTIONS[(number + 1) % 4]
    heard = EMOTIONS[(number + 2) % 4] if number % 5 == 0 else answer
    said = {
        "sft": f"{HEARD[answer]} {SEEN[answer]}",
        "r1_omni": f"{SEEN[answer]} The wall behind is plain.",
        "erv": f"{SEEN[answer]} {HEARD[answer]}",
    }
    return {
        "dataset": "mafw",
        "clip_id": clip_id,
        "split": "test",
        "label": label,
        "completion": f"<think>{said[policy]}</think>\n<answer>{answer}</answer>",
        "predicted": answer,
        "judged": answer,
        "sentences": 2,
        "verdicts": [verdict("embedding", answer), verdict("lexical", heard)],
        "sha256": sha256,
    }


def write_workspace(
    folder: Path, clips: int = 24, make: Callable[[int], bytes] = bars, policies: Sequence[str] = POLICIES
) -> Path:
    """Fills a folder."""
    (folder / "clips").mkdir(parents=True)
    for number in range(clips):
        (folder / "clips" / f"{number:05d}.mp4").write_bytes(make(number))
    rows, lock = pinned(folder / "clips")
    rows = [replace(row, split="test", label=emotion_of(int(row.clip_id))) for row in rows]
    write_manifest(rows, folder / "data/manifest/mafw.parquet")
    lock.save(folder / "data/sources/mafw.lock.json")
    stages = {}
    for policy in policies:
        path = folder / "eval" / policy / "predictions.parquet"
        path.parent.mkdir(parents=True)
        write_predictions([prediction(policy, row.clip_id, row.sha256) for row in rows], path)
        stages[f"evaluate@{policy}"] = {
            "cmd": f"evaluate {policy}",
            "outs": [{"path": path.relative_to(folder).as_posix(), "md5": content_digest(path), "size": 1}],
        }
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    shutil.copy(ROOT / "params.yaml", folder)
    change_study(folder, **STUDY)
    subprocess.run(["git", "init", "-q", folder], check=True)
    from dvc.repo import Repo

    with contextlib.chdir(folder), Repo.init(str(folder)):
        pass
    return folder


def change_study(folder: Path, **changes: Any) -> None:
    """Changes the section `study` of the workspace's params.yaml."""
    path = folder / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["study"].update(changes)
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
