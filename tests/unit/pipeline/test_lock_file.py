"""`dvc.lock` after DVC was killed while it wrote it: repaired, and never taken for a shorter one."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from erv import pipeline
from erv.pipeline import PipelineError, keep_lock, lock_fault, read_lock_entries, repair_lock
from erv.pipeline.lock_file import DAMAGED, KEPT
from tests.support.paths import ROOT

STAGES = 4
PIPELINE = """
stages:
  make:
    matrix: {{number: [{numbers}]}}
    cmd: echo ${{item.number}} ${{word}} > out_${{item.number}}.txt
    deps: [dep.txt]
    params: [word]
    outs: ["out_${{item.number}}.txt"]
  join:
    cmd: cat out_*.txt > joined.txt && mkdir -p folder && cp out_*.txt folder
    deps: [{outs}]
    outs: [folder, joined.txt]
"""


ENTRY = """  {name}:
    cmd: python -m stages.{name} --out {name}
    deps:
    - path: dep.txt
      hash: md5
      md5: 9dd4e461268c8034f5c8564e155c67a6
      size: 1
    params:
      params.yaml:
        seed: 0
    outs:
    - path: {name}
      hash: md5
      md5: 9b982d8ce4964b8a5cbff8d2fc38c4b3.dir
      size: 588897
      nfiles: 2
"""


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def dvc(folder: Path, *arguments: str) -> None:
    run(folder, sys.executable, "-m", "dvc", *arguments)


def git(folder: Path, *arguments: str) -> None:
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which everything has run."""
    folder = tmp_path_factory.mktemp("locked")
    numbers = [f"{number:02d}" for number in range(STAGES)]
    quoted = ", ".join(f'"{number}"' for number in numbers)
    outs = ", ".join(f"out_{number}.txt" for number in numbers)
    (folder / "dvc.yaml").write_text(PIPELINE.format(numbers=quoted, outs=outs))
    (folder / "params.yaml").write_text("word: first\n")
    (folder / "dep.txt").write_text("x")
    git(folder, "init", "-q")
    dvc(folder, "init", "-q")
    dvc(folder, "repro", "-q")
    return folder


@pytest.fixture
def lock(project: Path, tmp_path: Path) -> tuple[Path, bytes]:
    """The lock in a workspace of its own, and its whole content."""
    shutil.copytree(project / ".dvc", tmp_path / "w" / ".dvc")
    (tmp_path / "w" / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    content = (project / "dvc.lock").read_bytes()
    (tmp_path / "w" / "dvc.lock").write_bytes(content)
    return tmp_path / "w" / "dvc.lock", content


def test_every_beginning_of_a_lock_is_noticed(tmp_path: Path) -> None:
    content = ("schema: '2.0'\nstages:\n" + ENTRY.format(name="one") + ENTRY.format(name="two")).encode()
    path = tmp_path / "dvc.lock"
    path.write_bytes(content)
    keep_lock(tmp_path)
    missed = []
    second = content.index(b"  two:")
    for length in (*range(0, second, 9), *range(second, len(content))):
        path.write_bytes(content[:length])
        if lock_fault(tmp_path) is None:
            missed.append(content[length:].decode())
    # Only the size and the number of files of the last output, which the hash determines, may be missing.
    assert all("\n      size: 588897\n      nfiles: 2\n".endswith(end) for end in missed)


def test_a_damaged_lock_is_restored_and_kept_for_inspection(lock: tuple[Path, bytes]) -> None:
    path, content = lock
    assert repair_lock(path.parent) is None
    for damage in (
        b"",
        b"\n",
        content[: len(content) // 3],
        b"\xff\xfe" + content,
        content.replace(b"schema: '2.0'", b"- 1", 1),
        content.replace(b"cmd:", b"cmd: [1, {", 1),
        content.replace(b"size: 1\n", b"size: one\n", 1),  # only DVC's own schema knows
        b"[" * 100_000,
        b"null",
        b"schema: '2.0'\nstages:\n",
    ):
        path.write_bytes(damage)
        said = repair_lock(path.parent)
        assert said is not None
        assert said.startswith("dvc.lock was damaged (")
        assert f"): restored from {KEPT}; the damaged file is {DAMAGED}" in said
        assert "\n" not in said
        assert path.read_bytes() == content
        assert (path.parent / DAMAGED).read_bytes() == damage
    assert repair_lock(path.parent) is None


def test_without_a_copy_the_last_commit_helps_and_else_a_remedy(lock: tuple[Path, bytes]) -> None:
    path, content = lock
    path.write_bytes(b"")
    with pytest.raises(PipelineError, match=r"^dvc\.lock: empty; restore it from git, or delete it and run"):
        repair_lock(path.parent)
    with pytest.raises(PipelineError, match=r"dvc\.lock: empty; restore it from git, or delete it"):
        read_lock_entries(path)
    git(path.parent, "init", "-q")
    path.write_bytes(content)
    git(path.parent, "add", "dvc.lock")
    git(path.parent, "commit", "-qm", "lock")
    path.write_bytes(content[:900])
    assert "restored from git" in (repair_lock(path.parent) or "")
    assert path.read_bytes() == content


def test_a_damaged_copy_restores_nothing(lock: tuple[Path, bytes]) -> None:
    path, _ = lock
    keep_lock(path.parent)
    (path.parent / KEPT).write_bytes(b"schema: [")
    path.write_bytes(b"")
    with pytest.raises(PipelineError, match=r"dvc\.lock: empty"):
        repair_lock(path.parent)


def test_another_lock_on_purpose_stays(lock: tuple[Path, bytes]) -> None:
    path, content = lock
    # Two versions in git, the older one with fewer entries.
    short = content[: content.index(b"  make@02:")]
    git(path.parent, "init", "-q")
    for version in (short, content):
        path.write_bytes(version)
        git(path.parent, "add", "dvc.lock")
        git(path.parent, "commit", "-qm", "lock")
    assert repair_lock(path.parent) is None
    git(path.parent, "checkout", "-q", "HEAD~1")
    assert repair_lock(path.parent) is None
    assert path.read_bytes() == short == (path.parent / KEPT).read_bytes()
    # An entry removed from the middle, and an entry more.
    path.write_bytes(content)
    keep_lock(path.parent)
    without = content.replace(content[content.index(b"  make@02:") : content.index(b"  make@03:")], b"")
    path.write_bytes(without)
    assert repair_lock(path.parent) is None
    assert "make@02" not in read_lock_entries(path)
    path.write_bytes(without + ENTRY.format(name="more").encode())
    assert repair_lock(path.parent) is None
    # A deleted lock: whoever deletes it wants to start over.
    path.unlink()
    assert repair_lock(path.parent) is None
    path.write_bytes(short)
    assert repair_lock(path.parent) is None


def test_other_readers_say_what_is_wrong_with_the_lock(project: Path) -> None:
    path = project / "dvc.lock"
    content = path.read_bytes()
    try:
        keep_lock(project)
        path.write_bytes(b"schema: '2")
        with pytest.raises(PipelineError, match=r"^dvc\.lock: .*; `erv run` restores it$"):
            pipeline.read_stages(project)
    finally:
        path.write_bytes(content)


def test_a_stage_repairs_the_lock_first(project: Path) -> None:
    path = project / "dvc.lock"
    content = path.read_bytes()
    keep_lock(project)
    path.write_bytes(content[:700])
    lines: list[str] = []
    assert pipeline.repro("join", workspace=project, on_line=lines.append).outcome == "unchanged"
    assert path.read_bytes() == content
    assert lines[0].startswith("WARNING: dvc.lock was damaged (")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_dvc_killed_while_it_writes_its_lock(project: Path) -> None:
    """40 kills around the moment of the write: afterwards everything is restored, and nothing runs again."""
    random.seed(0)
    damaged = 0
    for attempt in range(40):
        (project / "params.yaml").write_text(f"word: w{attempt}\n")
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "-s", "make@02"],
            cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        repair_lock(project)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Updating lock file"):
                break
        time.sleep(random.uniform(0, 0.12))
        process.kill()
        process.wait()
        process.stdout.close()
        damaged += lock_fault(project) is not None
        repair_lock(project)
        assert len(read_lock_entries(project / "dvc.lock")) == STAGES + 1
        # What the killed stage made is not lost either.
        assert pipeline.repro("make@02", workspace=project).outcome in ("restored", "unchanged")
        assert (project / "out_02.txt").read_text() == f"02 w{attempt}\n"
        assert len(read_lock_entries(project / "dvc.lock")) == STAGES + 1
    assert damaged > 0


WRITER = """
import sys, time
from pathlib import Path
from dvc.repo import Repo
whole = Path("dvc.lock").read_bytes()
with Repo(".") as repo, repo.lock:
    Path("dvc.lock").write_bytes(whole[: int(sys.argv[1])])
    print("writing", flush=True)
    time.sleep(1.5)
    Path("dvc.lock").write_bytes(whole)
"""


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_lock_that_another_stage_just_writes_is_waited_for(tmp_path: Path, share: float) -> None:
    """A flow failed with `dvc.lock: empty` because the DVC of a stage beside it was rewriting the file."""
    run(tmp_path, "git", "init", "-q")
    dvc(tmp_path, "init", "-q")
    content = "schema: '2.0'\nstages:\n" + "".join(ENTRY.format(name=name) for name in "abcd")
    (tmp_path / "dvc.lock").write_text(content)
    keep_lock(tmp_path)
    size = content.index("  c:") if share else 0  # two whole entries: a shorter lock, but a valid one
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(size)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        assert list(read_lock_entries(tmp_path / "dvc.lock")) == list("abcd")


@pytest.fixture
def merging(tmp_path: Path) -> Path:
    """A repository with our `.gitattributes`, in which a merge of two people's results has begun."""

    def commit(change: str) -> None:
        (tmp_path / "dvc.lock").write_text(content.replace(*change.split(" -> ")) if change else content)
        git(tmp_path, "add", "-A")
        git(tmp_path, "-c", "user.name=A", "-c", "user.email=a@b.c", "commit", "-qm", change or "first")

    content = "schema: '2.0'\nstages:\n" + "".join(
        ENTRY.format(name=name) for name in ("one", "two", "three")
    )
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    git(tmp_path, "init", "-q", "-b", "main")
    commit("")
    git(tmp_path, "checkout", "-qb", "theirs")
    commit("  one: ->   one:\n    # theirs")
    git(tmp_path, "checkout", "-q", "main")
    commit("  three: ->   three:\n    # ours")
    subprocess.run(["git", "merge", "-q", "theirs"], cwd=tmp_path, capture_output=True, check=False)
    return tmp_path


def test_two_results_are_not_merged_line_by_line(merging: Path) -> None:
    """Their changes don't touch, so without `.gitattributes` git would merge them into a third result."""
    text = (merging / "dvc.lock").read_text()
    assert "# ours" in text
    assert "# theirs" not in text
    with pytest.raises(PipelineError, match=r"git has not merged two results in it; take one side with"):
        repair_lock(merging)
    assert not (merging / ".erv").exists()
    assert "git has not merged two results" in str(lock_fault(merging))

    git(merging, "checkout", "--theirs", "dvc.lock")
    git(merging, "add", "dvc.lock")
    assert repair_lock(merging) is None


def test_a_lock_with_both_sides_of_a_merge_is_left_alone(tmp_path: Path) -> None:
    entry = ENTRY.format(name="one")
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{entry}")
    keep_lock(tmp_path)
    both = f"schema: '2.0'\nstages:\n<<<<<<< HEAD\n{entry}=======\n{entry}>>>>>>> theirs\n"
    (tmp_path / "dvc.lock").write_text(both)
    with pytest.raises(PipelineError, match="git has not merged"):
        repair_lock(tmp_path)
    assert (tmp_path / "dvc.lock").read_text() == both
    with pytest.raises(PipelineError, match="take one side with `git checkout --ours"):
        read_lock_entries(tmp_path / "dvc.lock")
