"""The stage evaluate, killed in the middle: run again, it writes the bytes of an uninterrupted run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from erv.evaluate.code import code_digests
from erv.manifest import write_manifest
from erv.pinning import pin
from tests.integration.scratch import wait_until
from tests.support.paths import ROOT
from tests.support.sft_policy import ROWS, write_base, write_clips

pytestmark = pytest.mark.integration

PIECES = 5  # of two clips each
JUDGE_TEXTS = [
    ("Her fist is clenched and she shouts.", "anger"),
    ("He is furious.", "anger"),
    ("She trembles and backs away.", "fear"),
    ("He is scared.", "fear"),
]


class Workspace:
    """A folder with all that the stage reads: ten clips, a policy with random weights, a judge's texts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copy(ROOT / "dvc.yaml", folder)
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["roles"]["test"] = ["mafw"]
        params["evaluate"] |= {
            "batch_size": 2,
            "max_new_tokens": 150,
            "samples": 1,
            "judges": [{"kind": "lexical"}],
            "minimum_judge_accuracy": 0.0,
            "minimum_judge_texts": 0,
            "minimum_judge_emotions": 0.0,
        }
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        write_clips(folder / "shards")
        (folder / "shards/reasoning").rename(folder / "shards/mafw")
        rows = [replace(row, dataset="mafw", split="test", completion=None) for row in ROWS]
        (folder / "manifests").mkdir()
        write_manifest(rows, folder / "manifests/mafw.parquet")
        write_base(folder / "policy")
        pq.write_table(pa.table({"sentence": ["The voice is loud."]}), folder / "sentences.parquet")
        (folder / "judge").mkdir()
        with (folder / "judge/texts.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *JUDGE_TEXTS])
        for name in ("judge", "policy"):
            pin(name, str(folder / name), None).save(folder / f"{name}.lock.json")

    def start(self) -> subprocess.Popen[str]:
        options = {
            "name": "sft",
            "policy": "policy",
            "manifests": "manifests",
            "shards": "shards",
            "sentences": "sentences.parquet",
            "verifier": "verifier",  # only a judge with weights is compared with it
            "judge": "judge.lock.json",
            "base": "policy.lock.json",
            "labelled": str(ROOT / "data/judge_texts/policies.csv"),
            "predictions": "eval/sft/predictions.parquet",
            "metrics": "eval/sft/metrics.json",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "stages.evaluate", *(f"--{n}={value}" for n, value in options.items())],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> str:
        """Runs the stage to its end; returns what it said."""
        process = self.start()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def pieces(self) -> list[str]:
        found = (self.folder / ".erv/completions/sft/mafw").glob("*/0*/complete.json")
        return sorted(path.parent.name for path in found)

    def outputs(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "eval/sft").iterdir()}


@pytest.mark.slow
def test_a_kill_in_the_middle_changes_no_byte(tmp_path: Path) -> None:
    whole = Workspace(tmp_path / "whole")
    assert "kept from an earlier run" not in whole.finish()
    assert len(whole.pieces()) == PIECES

    killed = Workspace(tmp_path / "killed")
    process = killed.start()
    try:
        wait_until(lambda: len(killed.pieces()) >= 2 or process.poll() is not None, 300)
    finally:
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    before = len(killed.pieces())
    assert 2 <= before < PIECES
    assert not (killed.folder / "eval").exists()

    assert f"{2 * before} of 10 completions kept from an earlier run" in killed.finish()
    assert set(whole.outputs()) == {"predictions.parquet", "metrics.json"}
    assert killed.outputs() == whole.outputs()
    assert json.loads(whole.outputs()["metrics.json"])["code"] == code_digests(["mafw"])
