"""One question to DVC about all stages, on a scratch repository with real `dvc` and tiny stages."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from erv import pipeline
from erv.pipeline import PipelineStage, StageCancelledError
from erv.pipeline.unchanged import TRUSTED_SECONDS

PIPELINE = """
stages:
  make:
    matrix: {letter: [a, b]}
    cmd: mkdir -p made_${item.letter} && echo ${text} > made_${item.letter}/text
    params: [text]
    outs: ["made_${item.letter}"]
  join:
    cmd: cat made_a/text made_b/text > joined.txt
    deps: [made_a, made_b]
    outs: [joined.txt]
  last:
    cmd: cp joined.txt last.txt
    deps: [joined.txt]
    outs: [last.txt]
  alone:
    cmd: cp made_b/text alone.txt
    deps: [made_b]
    outs: [alone.txt]
"""
ALL = {"make@a", "make@b", "join", "last", "alone"}


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("text: same\n")
    dvc(folder, "init", "--no-scm", "-q")
    (folder / "pinned.txt").write_text("no stage makes this\n")
    dvc(folder, "add", "-q", "pinned.txt")
    dvc(folder, "repro", "-q")
    return folder


@pytest.fixture
def stages(project: Path) -> tuple[PipelineStage, ...]:
    return pipeline.read_stages(project)


def asked(stages: tuple[PipelineStage, ...], project: Path) -> frozenset[str]:
    return pipeline.ask_unchanged(stages, workspace=project).names


def test_what_needs_nothing_is_known_at_once(stages: tuple[PipelineStage, ...], project: Path) -> None:
    answer = pipeline.ask_unchanged(stages, workspace=project)
    assert answer.names == ALL
    result = answer.result("join")
    assert result is not None
    assert (result.name, result.outcome) == ("join", "unchanged")
    assert answer.result("unknown") is None


def test_below_a_stage_that_has_to_be_asked_nothing_is_known(
    stages: tuple[PipelineStage, ...], project: Path
) -> None:
    """`last` itself has not changed, but what `join` does now may change it."""
    (project / "joined.txt").unlink()
    assert asked(stages, project) == ALL - {"join", "last"}
    assert pipeline.repro("join", workspace=project).outcome == "restored"
    assert asked(stages, project) == ALL


def test_an_input_a_parameter_or_a_command_that_changed(
    stages: tuple[PipelineStage, ...], project: Path
) -> None:
    (project / "params.yaml").write_text("text: other\n")
    assert asked(stages, project) == frozenset()
    (project / "params.yaml").write_text("text: same\n")
    (project / "made_a/text").chmod(0o644)
    (project / "made_a/text").write_text("by hand\n")
    assert asked(stages, project) == {"make@b", "alone"}
    dvc(project, "checkout", "--force", "-q")
    (project / "dvc.yaml").write_text(PIPELINE.replace("cp joined.txt", "cp -p joined.txt"))
    assert asked(stages, project) == ALL - {"last"}
    (project / "dvc.yaml").write_text(PIPELINE)
    assert asked(stages, project) == ALL


def test_a_damaged_cache_hides_its_own_stage_only(stages: tuple[PipelineStage, ...], project: Path) -> None:
    """DVC fails there; `repro` of the stage removes the damage."""
    md5 = pipeline.read_lock_entries(project / "dvc.lock")["make@a"]["outs"][0]["md5"]
    listing = project / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    good = listing.read_bytes()
    listing.chmod(0o644)
    listing.write_bytes(b"[half")
    assert asked(stages, project) <= {"make@b", "alone"}
    assert pipeline.repro("make@a", workspace=project).outcome in ("ran", "restored")
    assert listing.read_bytes() == good
    assert asked(stages, project) == ALL


def test_an_old_answer_is_not_trusted(stages: tuple[PipelineStage, ...], project: Path) -> None:
    """A stage may wait for hours for its turn, and its inputs may be edited meanwhile."""
    answer = pipeline.ask_unchanged(stages, workspace=project)
    assert answer.result("last") is not None
    assert replace(answer, asked=time.monotonic() - TRUSTED_SECONDS - 1).result("last") is None


def test_without_dvc_every_stage_is_asked_as_ever(stages: tuple[PipelineStage, ...], tmp_path: Path) -> None:
    assert asked(stages, tmp_path) == frozenset()


def test_asking_can_be_cancelled(stages: tuple[PipelineStage, ...], project: Path) -> None:
    with pytest.raises(StageCancelledError):
        pipeline.ask_unchanged(stages, workspace=project, cancelled=lambda: True)
