"""`erv explain` as a user runs it: with a bundle, on a terminal and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from erv.answering.clips import ClipInput, ServedClips
from erv.answering.predictor import Predictor
from tests.support.talking_bundle import COMPLETIONS, SAID, write_talking_bundle
from tests.support.tiny_bundle import write_clip

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMMAND = [sys.executable, "-c", "from erv.cli import main; main()", "explain"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    clips = {
        emotion: write_clip(folder / f"{emotion} #1%20ü.mp4", seed=seed) for seed, emotion in enumerate(SAID)
    }
    (folder / "broken.mp4").write_bytes(b"no video")
    write_talking_bundle(folder / "bundle", clips)
    return folder


def test_programs_get_a_line_per_clip(folder: Path, tmp_path: Path) -> None:
    clips = [f"{folder}/anger #1%20ü.mp4", f"{folder}/broken.mp4", f"{folder}/happiness #1%20ü.mp4"]
    run = subprocess.run(
        [*COMMAND, *clips, "--bundle", str(folder / "bundle"), "--json", "--device", "cpu"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    assert run.stderr == f"loading {folder}/bundle ...\n"
    angry, broken, happy = map(json.loads, run.stdout.splitlines())
    assert [item["clip"] for item in (angry, broken, happy)] == clips
    assert broken["error"] == "container can't be read: not a known video format"
    predictor = Predictor(folder / "bundle", ServedClips(folder))
    for item, emotion in ((angry, "anger"), (happy, "happiness")):
        (row,) = predictor.predict([ClipInput(f"{emotion} #1%20ü.mp4")])
        assert row["completion"] == COMPLETIONS[emotion]
        for name in ("answer", "explanation", "completion", "agreement"):
            assert item[name] == row[name]
    assert max(angry["scores"], key=angry["scores"].get) == "anger"
    assert [one["agrees"] for one in angry["sentences"]] == [True, True, False, True]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "explain.log"]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_no_version_is_loaded_for_files_that_are_not_there(tmp_path: Path, more: list[str]) -> None:
    """It took a minute or two to say so."""
    (tmp_path / "bundle").mkdir()  # is none, which is found out by whoever opens it
    run = subprocess.run(
        [*COMMAND, "nothere.mp4", "nor here.mp4", "--bundle", "bundle", *more],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (1, "")
    if more:
        assert [json.loads(line) for line in run.stdout.splitlines()] == [
            {
                "clip": clip,
                "model": None,
                "version": None,
                "bundle": None,
                "error": "no such file",
                "code": "clip",
            }
            for clip in ("nothere.mp4", "nor here.mp4")
        ]
    else:
        assert run.stdout.count("error: no such file") == 2


def test_a_person_sees_it_in_colours(folder: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, f"{folder}/anger #1%20ü.mp4", "--bundle", str(folder / "bundle"), "--device", "cpu"],
        cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # how a terminal ends
        pass
    assert process.wait(60) == 0
    text = said.decode()
    first = text.index("The man frowns")
    assert text.index("\x1b[J") > first, "the words come first, then they are replaced"
    assert "\x1b[32m+ The man frowns and his jaw is tight.\x1b[0m" in text
    assert "\x1b[31m- For a moment he smiles.\x1b[0m" in text
    assert "3 of 4 sentences about emotions speak of it" in text
