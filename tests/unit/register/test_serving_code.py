"""Which code answers for a bundle, and when it counts as another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from erv.register import head, imports, serving_code
from erv.register.uncommitted import Committed, committed_code
from tests.support.paths import ROOT
from tests.support.tiny_bundle import write_bundle, write_clip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that can be edited."""
    copy = tmp_path / "tree/src/erv"
    copy.parent.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "tree")
    shutil.copytree(ROOT / "src/erv", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(serving_code, "PACKAGE", copy)
    monkeypatch.setattr(imports, "PACKAGE", copy)
    return copy


def bundle(folder: Path, model_type: str = "humanomni") -> Path:
    (folder / "policy").mkdir(parents=True, exist_ok=True)
    (folder / "policy/config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


COUNTS = {
    "answering/predictor.py": True,
    "answering/agreement.py": True,
    "answering/streaming.py": False,  # what streams is this workspace's code
    "answering/process.py": False,
    "register/model_content.py": True,  # which packages a version needs
    "media/decode.py": True,
    "verifier/model.py": True,
    "policies/humanomni/modeling.py": True,
    "policies/qwen_omni/modeling.py": False,
    "register/publish.py": False,
    "commands/run.py": False,
    "training/sft/sft.py": False,
}


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(package: Path) -> Path:
    """The folder of the package, all of it in a commit."""
    folder = package.parents[1]
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


def uncommitted(candidate: Path, tree: Path) -> list[str]:
    found = committed_code(candidate, tree)
    assert not found.unknown
    assert (found.commit is None) == bool(found.changed)
    return list(found.changed)


def test_code_that_is_in_no_commit_is_named(package: Path, tree: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    first = committed_code(candidate, tree)
    assert first == Committed(commit=git(tree, "rev-parse", "HEAD"))
    assert first.verdicts(None) == ()
    with (package / "answering/predictor.py").open("a") as stream:
        stream.write("\n# a comment\n")
    with (package / "commands/run.py").open("a") as stream:
        stream.write("\nADDED = 1\n")
    assert uncommitted(candidate, tree) == [], "what answers runs as it was committed"
    for path in ("media/decode.py", "labels/spaces/mafw.yaml"):
        with (package / path).open("a") as stream:
            stream.write("\nADDED: 1\n")
    (package / "media/fresh.py").write_text("NEW = 1\n")
    with (package / "media/limits.py").open("a") as stream:
        stream.write("\nimport erv.media.fresh\n")
    changed = [f"src/erv/{path}" for path in ("labels/spaces/mafw.yaml", "media/decode.py")]
    changed += [f"src/erv/media/{name}.py" for name in ("fresh", "limits")]
    assert uncommitted(candidate, tree) == changed
    found = committed_code(candidate, tree)
    (verdict,) = found.verdicts(None)
    assert verdict.text() == (
        f"fail: serving code: {', '.join(changed[:3])} and 1 more can't be found in the commit that is"
        " checked out; commit, and `erv publish` decides again"
    )
    assert found.verdicts(first.commit) == (), "that version's code was found in a commit before"
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "more")
    assert committed_code(candidate, tree) == Committed(commit=git(tree, "rev-parse", "HEAD"))
    assert committed_code(candidate, tmp_path / "candidate") == Committed(), "it is no part of that workspace"


FRESH, LIMITS = "src/erv/media/fresh.py", "src/erv/media/limits.py"


@pytest.mark.parametrize("place", [".git/info/exclude", ".gitignore"])
def test_code_that_git_ignores_is_in_no_commit(tree: Path, tmp_path: Path, place: str) -> None:
    """A module that was ignored, and imported by a committed one, was served."""
    with (tree / LIMITS).open("a") as stream:
        stream.write("\nimport erv.media.fresh\n")
    git(tree, "commit", "-aqm", "the import alone")
    with (tree / place).open("a") as stream:
        stream.write("fresh.py\n")
    (tree / FRESH).write_text("NEW = 1\n")
    assert uncommitted(bundle(tmp_path / "candidate"), tree) == [FRESH]
    (tree / FRESH).unlink()
    (tmp_path / "fresh.py").write_text("NEW = 1\n")
    (tree / FRESH).symlink_to(tmp_path / "fresh.py")
    assert uncommitted(bundle(tmp_path / "candidate"), tree) == [FRESH], "a link out of the folder"
    git(tree, "add", "-f", FRESH)
    git(tree, "commit", "-qm", "the link")
    assert uncommitted(bundle(tmp_path / "candidate"), tree) == [FRESH], "a link is not what it leads to"


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_an_edit_that_git_was_told_to_overlook_is_seen(tree: Path, tmp_path: Path, flag: str) -> None:
    git(tree, "update-index", flag, LIMITS)
    with (tree / LIMITS).open("a") as stream:
        stream.write("\nADDED = 1\n")
    assert git(tree, "status", "--porcelain") == ""
    assert uncommitted(bundle(tmp_path / "candidate"), tree) == [LIMITS]


def test_data_that_only_the_commit_has_is_missed(tree: Path, tmp_path: Path) -> None:
    (tree / "src/erv/labels/spaces/mafw.yaml").unlink()
    assert uncommitted(bundle(tmp_path / "candidate"), tree) == ["src/erv/labels/spaces/mafw.yaml"]


def test_an_object_that_replaces_the_committed_one_is_not_it(tree: Path, tmp_path: Path) -> None:
    with (tree / LIMITS).open("a") as stream:
        stream.write("\nADDED = 1\n")
    edited = git(tree, "hash-object", "-w", LIMITS)
    git(tree, "replace", git(tree, "rev-parse", f"HEAD:{LIMITS}"), edited)
    assert uncommitted(bundle(tmp_path / "candidate"), tree) == [LIMITS]


def test_a_gate_that_git_can_not_answer_is_not_passed(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command of git that failed counted as one that found nothing."""
    tree, candidate = package.parents[1], bundle(tmp_path / "candidate")

    def said() -> str:
        found = committed_code(candidate, tree)
        assert found.commit is None
        (verdict,) = found.verdicts(None)
        assert not verdict.passed
        return verdict.text()

    assert said().startswith("can't tell: serving code: `git rev-parse` failed: fatal: not a git repository")
    assert said().endswith("; put that right, and `erv publish` decides again")
    git(tree, "init", "-q")
    assert said().startswith("can't tell: serving code: `git rev-parse` failed: ")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "all")
    assert committed_code(candidate, tree).commit
    with monkeypatch.context() as owned:
        owned.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        assert "dubious ownership" in said()
    with monkeypatch.context() as none:
        none.setenv("PATH", str(tmp_path))
        assert said().startswith("can't tell: serving code: `git rev-parse` can't be run: No such file")
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/git").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "slow/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'slow'}:/usr/bin:/bin")
    monkeypatch.setattr(head, "_SECONDS", 0.2)
    assert said().startswith("can't tell: serving code: `git rev-parse` didn't end within 0.2 s")


def test_what_counts(package: Path, tmp_path: Path) -> None:
    files = serving_code.serving_files(bundle(tmp_path / "candidate"))
    assert {path: package / path in files for path in COUNTS} == COUNTS


def test_only_what_counts_makes_other_code(package: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    digest = serving_code.serving_code(candidate)
    for counts in (False, True):
        for path in (path for path in COUNTS if COUNTS[path] is counts):
            with (package / path).open("a") as stream:
                stream.write("\nADDED = 1\n")
        assert (serving_code.serving_code(candidate) != digest) is counts


def test_data_beside_the_code_counts(package: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    before = serving_code.serving_code(candidate)
    path = package / "labels/spaces/mafw.yaml"
    path.write_text(path.read_text() + "\n# edited\n")
    assert serving_code.serving_code(candidate) != before


def test_what_editors_leave_beside_the_code_does_not(package: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    before = serving_code.serving_files(candidate)
    for name in ("serving.py~", ".serving.py.swp", ".DS_Store", "serving.py.orig", "#serving.py#", "core"):
        (package / "register" / name).write_text("left")
        (package / "labels/spaces" / name).write_text("left")
    assert serving_code.serving_files(candidate) == before
    assert package / "labels/spaces/mafw.yaml" in before


def test_an_installed_package_has_the_same_code(package: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    before = serving_code.serving_files(candidate)
    (package.parents[1] / "pyproject.toml").unlink()
    assert serving_code.serving_files(candidate) == before


def test_comments_and_docstrings_do_not(package: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    before = serving_code.serving_code(candidate)
    path = package / "answering/predictor.py"
    text = path.read_text()
    path.write_text(text.replace('"""Answers for single clips', '"""Says for single clips') + "# the end\n")
    assert path.read_text() != text
    assert serving_code.serving_code(candidate) == before


def test_what_is_stored_is_what_counts(package: Path, tmp_path: Path) -> None:
    candidate = bundle(tmp_path / "candidate")
    copy = serving_code.copy_code(candidate, tmp_path / "stored")
    stored = {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    assert stored == {path.relative_to(package) for path in serving_code.serving_files(candidate)}
    assert Path("commands/run.py") not in stored
    assert (copy / "answering/predictor.py").read_bytes() == (package / "answering/predictor.py").read_bytes()


def test_another_family_is_other_code(tmp_path: Path) -> None:
    one, other = bundle(tmp_path / "one"), bundle(tmp_path / "other", "qwen_omni")
    assert serving_code.serving_code(one) != serving_code.serving_code(other)


@pytest.mark.slow
def test_a_served_answer_imports_nothing_else(tmp_path: Path) -> None:
    """What a process that answers has loaded of the package is among the files that count."""
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle")
    write_clip(tmp_path / "clip.mp4")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from erv.answering.predictor import Predictor\n"
        "from erv.answering.clips import ClipInput, ServedClips\n"
        f"predictor = Predictor(Path('{tmp_path}/bundle'), ServedClips(Path('{tmp_path}')))\n"
        "assert predictor.predict([ClipInput('clip.mp4')])[0]['error'] is None\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n == 'erv' or n.startswith('erv.')])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    loaded = {Path(name) for name in run.stdout.split()}
    assert len(loaded) > 20
    assert loaded <= serving_code.serving_files(tmp_path / "bundle")
