"""The stage distill as DVC runs it: two teachers that read, one behind HTTP and one local."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from erv.exclusions import Excluded, write_exclusions
from erv.manifest import ClipRow, write_manifest
from erv.pinning import pin
from erv.prompts import format_completion
from erv.rollouts.rollouts import write_rollouts
from tests.conftest import ROOT
from tests.support.chat_server import Script, fails, says
from tests.support.tiny_teacher import SENTENCES, make_teacher

pytestmark = pytest.mark.integration

TEXTS = list(SENTENCES)
KEY = "sk-hunter2-hunter2"


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    script.answer = lambda sentence, *_: says(json.dumps({"labels": list(SENTENCES[sentence])}))
    yield script
    script.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_teacher(folder / "teacher")
    return folder


class Workspace:
    """A folder with what the stage reads: two sentences a clip, two more without one."""

    def __init__(self, folder: Path, base: Path, script: Script) -> None:
        self.folder = folder
        rows = []
        for number in range(0, len(TEXTS) - 2, 2):
            completion = format_completion(" ".join(TEXTS[number : number + 2]), "anger")
            name = f"sample_{number:08d}"
            rest = ("video", "s3://x", 1, "0" * 64, "", "", None)
            row = ClipRow(name, "reasoning", 0, "train", "anger", "anger", None, completion, *rest)
            rows.append(row)
        write_manifest(rows, folder / "manifest.parquet")
        (folder / "source").mkdir()
        loose = "".join(f'"{text}"\n' for text in TEXTS[-2:])
        (folder / "source" / "sentences.csv").write_text(f"sentence\n{loose}")
        pin("reasoning", str(folder / "source"), None).save(folder / "reasoning.lock.json")
        pin("base", str(base), None).save(folder / "base.lock.json")
        write_exclusions([], folder / "exclusions.json")
        self.endpoint = {
            "kind": "openai",
            "model": "far",
            "base_url": script.url,
            "api_key_env": "TEACHER_KEY",
            "max_retries": 0,
        }
        self.params = yaml.safe_load((ROOT / "params.yaml").read_text())
        self.params["distill"] |= {"validation_share": 0.3, "test_share": 0.3, "max_quarantine_share": 0.3}

    def run(self, *teachers: dict[str, Any], **changes: Any) -> subprocess.CompletedProcess[str]:
        self.params["distill"] |= {"teachers": list(teachers), **changes}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params))
        options = {
            "manifest": "manifest.parquet",
            "reasoning": "reasoning.lock.json",
            "base": "base.lock.json",
            "rollouts": "rollouts",
            "exclusions": "exclusions.json",
            "sentences": "out/sentences.parquet",
            "quarantine": "out/quarantine.parquet",
            "summary": "out/sentences.json",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "TEACHER_KEY": KEY,
        }
        return subprocess.run(
            [sys.executable, "-m", "stages.distill", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "out" / "sentences.json").read_text())


@pytest.fixture
def workspace(tmp_path: Path, base: Path, script: Script) -> Workspace:
    return Workspace(tmp_path, base, script)


@pytest.mark.slow
def test_two_teachers_label_the_sentences_of_a_source(workspace: Workspace, script: Script) -> None:
    contrary = TEXTS[0]
    script.answer = lambda sentence, *_: says(
        json.dumps({"labels": ["neutral"] if sentence == contrary else list(SENTENCES[sentence])})
    )
    done = workspace.run(workspace.endpoint, {"kind": "local", "model": "teacher"})
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(workspace.folder / "out" / "sentences.parquet").to_pylist()
    assert {row["sentence"]: tuple(row["labels"]) for row in rows} == {
        text: labels for text, labels in SENTENCES.items() if text != contrary
    }
    assert {row["teacher"] for row in rows} == {"majority of openai:far, local:teacher"}
    assert [row["source"] for row in rows].count("sentences") == 2
    refused = pq.read_table(workspace.folder / "out" / "quarantine.parquet").to_pylist()
    assert [(row["sentence"], row["reason"], row["detail"]) for row in refused] == [
        (contrary, "disagreement", "neutral; anger")
    ]
    pair = workspace.summary["agreement"][0]
    assert pair["teachers"] == ["openai:far", "local:teacher"]
    assert 0.8 < pair["kappa"] < 1.0
    assert workspace.summary["teachers"]["openai:far"] == {"labelled": 20, "refused": 0}


@pytest.mark.slow
def test_the_verifier_learns_nothing_from_an_excluded_clip(workspace: Workspace, script: Script) -> None:
    out = [Excluded("reasoning", "sample_00000000")]
    write_exclusions(out, workspace.folder / "exclusions.json")
    script.answer = lambda sentence, *_: says(json.dumps({"labels": list(SENTENCES[sentence])}))
    done = workspace.run(workspace.endpoint)
    assert done.returncode == 0, done.stderr
    assert sorted(script.asked) == sorted(TEXTS[2:])
    rows = pq.read_table(workspace.folder / "out" / "sentences.parquet").to_pylist()
    assert "sample_00000000" not in {row["clip_id"] for row in rows}


@pytest.mark.slow
def test_sampled_explanations_are_labelled_too(workspace: Workspace, script: Script) -> None:
    write_rollouts([("c", TEXTS[0]), ("c", None)], workspace.folder / "rollouts" / "sft.parquet")
    workspace.params["rollouts"]["policies"] = ["sft"]
    script.answer = lambda sentence, *_: says(json.dumps({"labels": list(SENTENCES[sentence])}))
    done = workspace.run(workspace.endpoint)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(workspace.folder / "out" / "sentences.parquet").to_pylist()
    assert [(row["sentence"], row["clip_id"]) for row in rows if row["source"] == "rollouts"] == [
        (TEXTS[0], "c")
    ]
    assert workspace.summary["completions_without_explanation"] == 1


@pytest.mark.slow
def test_a_stage_that_is_stopped_by_its_budget_goes_on(workspace: Workspace, script: Script) -> None:
    usage = {"prompt_tokens": 400, "completion_tokens": 10, "total_tokens": 410}
    script.answer = lambda sentence, *_: says(json.dumps({"labels": list(SENTENCES[sentence])}), usage)
    small = workspace.endpoint | {"max_tokens": 4000, "concurrency": 1}
    stopped = workspace.run(small)
    assert stopped.returncode == 1
    assert stopped.stderr.splitlines()[-1].startswith("error: distill: openai:far: stopped with ")
    assert not (workspace.folder / "out").exists()
    asked = len(script.asked)
    assert 0 < asked < len(TEXTS)
    done = workspace.run(workspace.endpoint)
    assert done.returncode == 0, done.stderr
    assert sorted(script.asked) == sorted(TEXTS)  # each once, in two runs
    assert KEY not in stopped.stderr + done.stderr
    before = (workspace.folder / "out" / "sentences.parquet").read_bytes()
    assert workspace.run(workspace.endpoint).returncode == 0
    assert len(script.asked) == len(TEXTS)
    assert (workspace.folder / "out" / "sentences.parquet").read_bytes() == before


def test_prose_goes_to_quarantine_and_too_much_of_it_fails_the_stage(
    workspace: Workspace, script: Script
) -> None:
    talkative = TEXTS[2:6]
    script.answer = lambda sentence, *_: says(
        "I believe that this is fear." if sentence in talkative else '{"labels": ["anger"]}'
    )
    done = workspace.run(workspace.endpoint)
    assert done.returncode == 0, done.stderr
    assert workspace.summary["quarantined"] == {"malformed": 4}
    failed = workspace.run(workspace.endpoint, max_quarantine_share=0.1)
    assert failed.returncode == 1
    message = failed.stderr.splitlines()[-1]
    assert message.startswith(
        "error: distill: 4 of 20 sentences got no labels (malformed 4), at most 10% may;"
    )
    assert "I believe that this is fear." in message


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"api_key_env": "NO_SUCH_KEY"}, 2, "the environment variable NO_SUCH_KEY is not set"),
        ({"base_url": "http://127.0.0.1:9/v1"}, 1, "gave no answer for"),
    ],
)
def test_a_teacher_that_can_not_be_asked(
    workspace: Workspace, change: dict[str, Any], code: int, message: str
) -> None:
    failed = workspace.run(workspace.endpoint | change)
    assert failed.returncode == code
    assert message in failed.stderr.splitlines()[-1]
    assert not (workspace.folder / "out").exists()


def test_a_refused_key_is_not_shown(workspace: Workspace, script: Script) -> None:
    script.answer = lambda *_: fails(401, f"Incorrect API key provided: {KEY}")
    failed = workspace.run(workspace.endpoint)
    assert failed.returncode == 1
    assert "401" in failed.stderr.splitlines()[-1]
    assert KEY not in failed.stderr


def test_a_source_without_labels_needs_a_teacher_that_reads(workspace: Workspace) -> None:
    failed = workspace.run({"kind": "reference"})
    assert failed.returncode == 1
    assert "has no sentence_labels.csv, which the teacher reference reads" in failed.stderr.splitlines()[-1]
