"""The DVC side of the pipeline, on a scratch repository with real `dvc` and tiny stages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml

from erv import pipeline
from erv.pipeline import PipelineError, StageCancelledError, StageFailedError

PIPELINE = """
stages:
  make:
    matrix: {letter: [a, b]}
    cmd: python work.py ${item.letter} ${delay} > out_${item.letter}.txt
    deps: [work.py]
    params: [delay]
    outs: ["out_${item.letter}.txt"]
  join:
    cmd: cat out_a.txt out_b.txt > joined.txt; echo 'joined both'
    deps: [out_a.txt, out_b.txt]
    outs: [joined.txt]
  fail:
    cmd: python fail.py
    deps: [joined.txt, fail.py]
    outs: [never.txt]
  other:
    cmd: sleep 60
    deps: [joined.txt]
    outs: [other.txt]
"""
WORK = "import sys, time; time.sleep(float(sys.argv[2])); print(sys.argv[1])"
FAIL = "import sys; sys.exit('error: fail: clip 7 is broken;\\n  - first\\n  - second')"


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "params.yaml").write_text("delay: 0\n")
    (folder / "work.py").write_text(WORK)
    (folder / "fail.py").write_text(FAIL)
    dvc(folder, "init", "--no-scm", "-q")
    dvc(folder, "remote", "add", "-d", "store", str(tmp_path_factory.mktemp("remote")))
    return folder


def test_graph_is_read_in_order(project: Path) -> None:
    stages = pipeline.read_stages(project)
    assert [s.name for s in stages] == ["make@a", "make@b", "join", "fail", "other"]
    join = stages[2]
    assert join.upstream == ("make@a", "make@b")
    assert join.outputs == ("joined.txt",)
    assert join.dependencies == ("out_a.txt", "out_b.txt")
    assert stages[0].group == "make"


def test_selection_takes_what_is_needed(project: Path) -> None:
    stages = pipeline.read_stages(project)
    assert [s.name for s in pipeline.select(stages, ["make"])] == ["make@a", "make@b"]
    assert [s.name for s in pipeline.select(stages, ["join"])] == ["make@a", "make@b", "join"]
    assert pipeline.select(stages, None) == stages
    with pytest.raises(PipelineError, match=r"no stage 'nope' in dvc\.yaml, expected one of make@a"):
        pipeline.select(stages, ["nope"])


def test_outside_a_repository_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no dvc\.yaml here; run this from the top of the repository"):
        pipeline.read_stages(tmp_path)


@pytest.fixture
def own_project(project: Path, tmp_path: Path) -> Path:
    """A copy of the project that a test may damage."""
    return shutil.copytree(project, tmp_path / "project")


@pytest.mark.parametrize("content", ["{a: " * 100_000, "- " * 100_000, "stages: [1", "stages: {}", "\0"])
def test_a_damaged_dvc_yaml_is_one_sentence(own_project: Path, content: str) -> None:
    # DVC's own parser crashes on the first two.
    (own_project / "dvc.yaml").write_text(content)
    with pytest.raises(PipelineError, match=r"^dvc\.yaml: .*; restore it from git$"):
        pipeline.read_stages(own_project)


def test_a_damaged_config_of_dvc_is_not_blamed_on_the_graph(own_project: Path) -> None:
    (own_project / ".dvc/config").write_text("[core")
    with pytest.raises(PipelineError, match=r"^\.dvc: .*config.*; see `erv doctor`$"):
        pipeline.read_stages(own_project)


def test_ran_unchanged_restored(project: Path) -> None:
    lines: list[str] = []
    assert pipeline.repro("make@a", workspace=project, on_line=lines.append).outcome == "ran"
    assert any("Running stage 'make@a'" in line for line in lines)
    assert pipeline.repro("make@a", workspace=project).outcome == "unchanged"
    (project / "out_a.txt").unlink()
    assert pipeline.repro("make@a", workspace=project).outcome == "restored"
    assert (project / "out_a.txt").read_text() == "a\n"
    assert pipeline.repro("make@a", workspace=project, force=True).outcome == "ran"
    assert pipeline.read_lock_entries(project / "dvc.lock")["make@a"]["outs"][0]["path"] == "out_a.txt"


def test_a_transfer_that_moves_nothing_says_nothing(project: Path) -> None:
    """Of a placed stage that was about to run, and of one that had run, DVC said that all was up to date."""
    pipeline.repro("make@a", workspace=project)
    said: list[str] = []
    for _time in range(2):
        pipeline.push_outputs(["make@a"], on_line=said.append, workspace=project)
        pipeline.take_entry(
            "make@a",
            pipeline.read_lock_entries(project / "dvc.lock")["make@a"],
            on_line=said.append,
            cancelled=lambda: False,
            workspace=project,
        )
    assert any("pushed" in line for line in said)
    assert not any("up to date" in line for line in said)


def test_restored_from_the_remote_when_the_cache_is_gone(project: Path, tmp_path: Path) -> None:
    pipeline.repro("make@b", workspace=project)
    pipeline.push(workspace=project)
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("dvc.yaml", "params.yaml", "work.py", "fail.py"):
        (clone / name).write_text((project / name).read_text())
    dvc(clone, "init", "--no-scm", "-q")
    remote = yaml.safe_load(subprocess.check_output(
        [sys.executable, "-m", "dvc", "config", "remote.store.url"], cwd=project, text=True
    ).strip())  # fmt: skip
    dvc(clone, "remote", "add", "-d", "store", remote)
    assert pipeline.repro("make@b", workspace=clone, pull=True).outcome == "restored"
    assert (clone / "out_b.txt").read_text() == "b\n"


def test_a_failure_carries_the_stages_own_words(project: Path) -> None:
    for name in ("make@a", "make@b", "join"):
        pipeline.repro(name, workspace=project)
    with pytest.raises(StageFailedError) as caught:
        pipeline.repro("fail", workspace=project)
    assert str(caught.value) == "fail: clip 7 is broken;\n  - first\n  - second"


def test_a_crash_carries_the_last_line_of_its_traceback(project: Path) -> None:
    (project / "fail.py").write_text("raise ZeroDivisionError('no clips to divide by')")
    with pytest.raises(StageFailedError, match=r"^fail: ZeroDivisionError: no clips to divide by$"):
        pipeline.repro("fail", workspace=project)
    (project / "fail.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(StageFailedError, match=r"^fail: .*python fail.py"):
        pipeline.repro("fail", workspace=project)
    (project / "fail.py").write_text(FAIL)


def test_cancelling_stops_the_command_at_once(project: Path) -> None:
    for name in ("make@a", "make@b", "join"):
        pipeline.repro(name, workspace=project)
    running = threading.Event()
    started = time.monotonic()

    def on_line(line: str) -> None:
        if line.startswith("> sleep 60"):
            running.set()

    with pytest.raises(StageCancelledError, match="other: cancelled"):
        pipeline.repro("other", workspace=project, on_line=on_line, cancelled=running.is_set)
    assert time.monotonic() - started < 10
    mine = psutil.Process(os.getpid()).children(recursive=True)
    assert not [p for p in mine if "sleep" in p.name()]


def test_independent_stages_run_side_by_side(project: Path) -> None:
    (project / "params.yaml").write_text("delay: 3\n")
    finished: dict[str, float] = {}
    begun: dict[str, float] = {}

    def work(name: str) -> None:
        def on_line(line: str) -> None:
            if line.startswith("Running stage"):
                begun[name] = time.monotonic()

        pipeline.repro(name, workspace=project, on_line=on_line)
        finished[name] = time.monotonic()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("make@a", "make@b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(begun.values()) < min(finished.values()), "they ran one after the other"
    lock = pipeline.read_lock_entries(project / "dvc.lock")
    assert lock["make@a"]["params"] == lock["make@b"]["params"] == {"params.yaml": {"delay": 3}}


def test_a_second_pipeline_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.lock"
    with pipeline.one_pipeline_at_a_time(path):
        held = f"with pipeline.one_pipeline_at_a_time({str(path)!r}): print('in')"
        script = f"from erv import pipeline\n{held}"
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "another pipeline runs in" in second.stderr
    third = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert third.stdout == "in\n"
