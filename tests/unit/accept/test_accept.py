"""Results that are kept although their code has changed, on real repositories of git and DVC."""

from __future__ import annotations

import contextlib
import getpass
import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from erv.accept.accept import VERSIONS, is_code
from erv.commands.accept import command, offer
from erv.determinism import code_of
from erv.errors import ErvError
from erv.pipeline import behind, read_accepted, read_changes, read_lock_entries, read_stages
from erv.tracking.lock_entries import entry_hash, pipeline_files
from tests.conftest import ROOT as REPOSITORY
from tests.support.finished import finish

ROOM = "src/erv/rewards"
FILE = f"{ROOM}/accuracy.py"
PIPELINE = """
stages:
  make:
    cmd: cp source.txt made.txt
    deps: [source.txt, stages/make.py, src/erv/rewards, requirements/results.lock]
    params: [make, seed]
    outs: [made.txt]
  last:
    matrix: {arm: [a, b]}
    cmd: cp made.txt last_${item.arm}.txt
    deps: [made.txt, stages/last.py, src/erv/rewards]
    outs: ["last_${item.arm}.txt"]
"""
FILES = {
    "dvc.yaml": PIPELINE,
    "params.yaml": "seed: 1\nmake: {steps: 10, rate: 0.1}\n",
    "source.txt": "clips",
    ".dvcignore": "README.md\n",
    "stages/make.py": "MADE = 1\n",
    "stages/last.py": "LAST = 1\n",
    FILE: '"""Accuracy."""\n\n\ndef accuracy(right):\n    return float(right)\n',
    f"{ROOM}/words.yaml": "smile: happiness\n",
    f"{ROOM}/README.md": "For people.\n",
    "requirements/results.lock": "torch==2\n",
}
LAST = {"last@a", "last@b"}
ALL = {"make", *LAST}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything has run on committed code, and the code was something else before and after."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("finished") / "it"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    for key, value in (("name", "Ada"), ("email", "ada@example.org")):
        git(folder, "config", f"user.{key}", value)
    with contextlib.chdir(folder):
        Repo.init(".").close()
        Path("pinned.txt").write_text("no stage makes this\n")
        with Repo(".") as repo:
            repo.add("pinned.txt")
        for text in ("# before\n", FILES[FILE], "# after\n"):
            Path(FILE).write_text(text)
            git(folder, "add", "-A")
            git(folder, "commit", "-qm", text)
        Path(FILE).write_text(FILES[FILE])
        with Repo(".") as repo:
            repo.reproduce()
    return folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "it", symlinks=True)
    monkeypatch.chdir(tmp_path / "it")
    return tmp_path / "it"


def edit(path: str, before: str, after: str) -> None:
    text = Path(path).read_text()
    assert before in text
    Path(path).unlink()  # DVC may have protected it
    Path(path).write_text(text.replace(before, after, 1))


def comment(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("\n# a comment\n")


def accept(*arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit | ErvError):
        raise result.exception
    return result


def refused(*arguments: str) -> str:
    before = Path("dvc.lock").read_bytes()
    result = accept(*arguments)
    assert isinstance(result.exception, ErvError), result.output
    assert Path("dvc.lock").read_bytes() == before
    assert not Path("accepted.json").exists()
    return str(result.exception)


def out_of_date() -> set[str]:
    return {name for name, changes in read_changes(read_stages()).items() if changes}


def test_it_shows_and_writes_nothing(workspace: Path) -> None:
    assert accept().output == "every stage is up to date by itself: there is nothing to keep\n"
    assert accept("--all").output == "nothing to keep: no result is out of date for its code alone\n"
    edit(FILE, '"""Accuracy."""', "# Accuracy.")
    comment("stages/make.py")
    edit("stages/last.py", "LAST = 1", "LAST = 2")
    before = Path("dvc.lock").read_bytes()
    harmless = "comments, docstrings or formatting"
    assert accept().output.splitlines() == [
        "make: can be kept, nothing that runs has changed",
        f"  stages/make.py: {harmless}",
        f"  {FILE}: {harmless}",
        *(
            line
            for name in ("last@a", "last@b")
            for line in (
                f"{name}: can be kept with a --reason",
                "  stages/last.py: code",
                f"  {FILE}: {harmless}",
            )
        ),
        "3 stages would run again by themselves: `erv accept --all` keeps 1, and 2 more with --reason TEXT",
    ]
    assert Path("dvc.lock").read_bytes() == before
    assert not Path("accepted.json").exists()


@pytest.mark.parametrize(
    ("harmless", "able", "count", "said"),
    [
        (1, 1, 1, "1 stage would run again by itself: `erv accept --all` keeps 1"),
        (2, 2, 3, "3 stages would run again by themselves: `erv accept --all` keeps 2"),
        (0, 1, 1, "1 stage would run again by itself: `erv accept --all --reason TEXT` keeps 1"),
        (0, 0, 1, "1 stage would run again by itself, and its result can't be kept"),
        (0, 0, 2, "2 stages would run again by themselves, and no result of theirs can be kept"),
    ],
)
def test_the_offer_names_nothing_that_is_not_there(harmless: int, able: int, count: int, said: str) -> None:
    assert offer(harmless, able, count) == said


def test_harmless_changes_are_kept_and_touch_no_output(workspace: Path) -> None:
    comment(FILE)
    edit(f"{ROOM}/words.yaml", "smile:", "# a cue\nsmile:")
    edit(f"{ROOM}/README.md", "For people", "For all people")  # which DVC ignores
    assert out_of_date() == ALL
    times = {name: Path(name).stat().st_mtime_ns for name in ("made.txt", "last_a.txt")}
    locked = read_lock_entries()
    assert "3 results kept; commit dvc.lock and accepted.json with the code" in accept("--all").output
    assert out_of_date() == set(), "DVC would run nothing"
    assert {name: Path(name).stat().st_mtime_ns for name in times} == times
    for name, entry in read_lock_entries().items():
        for part in ("outs", "params", "cmd"):
            assert entry.get(part) == locked[name].get(part)


def test_only_the_named_stages_are_kept(workspace: Path) -> None:
    comment(FILE)
    accept("last@a")
    assert out_of_date() == {"make", "last@b"}
    accept("last")
    assert out_of_date() == {"make"}
    assert "no stage 'nothing' in dvc.yaml" in str(accept("nothing").exception)
    assert accept("--all", "last").exit_code == 2
    assert accept("--reason", "x").exit_code == 2


def test_code_needs_a_reason_which_is_recorded(workspace: Path) -> None:
    edit("stages/last.py", "LAST", "import os\nLAST")
    assert refused("last@a") == (
        "last@a: stages/last.py (code) may change its result; run the stage, or say with --reason why it"
        " doesn't"
    )
    assert "last@a: can be kept with a --reason" in accept("--all").output
    assert out_of_date() == LAST, "--all alone keeps only what is harmless"
    old = entry_hash(read_lock_entries()["last@a"])
    accept("last", "--reason", "an import\nthat is not used")
    assert out_of_date() == set()
    records = {record.stage: record for record in read_accepted()}
    assert records.keys() == LAST
    record = records["last@a"]
    assert (record.who, record.reason) == (
        f"Ada ({getpass.getuser()}@{platform.node()})",
        "an import that is not used",
    )
    assert [(file.path, file.change) for file in record.files] == [("stages/last.py", "code")]
    assert record.before == old
    assert record.after == entry_hash(read_lock_entries()["last@a"])
    assert Path("accepted.json") in pipeline_files(), "it goes to MLflow with dvc.lock"


def test_steps_are_followed_back(workspace: Path) -> None:
    first = entry_hash(read_lock_entries()["make"])
    for _ in range(2):
        comment("stages/make.py")
        accept("make")
        git(workspace, "commit", "-qam", "code")
    digest = entry_hash(read_lock_entries()["make"])
    steps = behind(digest, read_accepted())
    assert len(steps) == 2
    assert steps[0].after == digest
    assert steps[0].before == steps[1].after
    assert steps[1].before == first
    assert behind(first, read_accepted()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("params.yaml", "rate: 0.1", "rate: 0.5"), "parameter make.rate 0.1 -> 0.5"),
        (("params.yaml", "seed: 1\n", ""), "parameter seed 1 -> (none)"),
        (("dvc.yaml", "cmd: cp source", "cmd: cp -p source"), "its command has changed"),
        (("made.txt", "clips", "by hand"), "output made.txt is modified"),
        (("source.txt", "clips", "others"), "data source.txt has changed"),
    ],
)
def test_data_parameters_and_outputs_are_named_and_refused(
    workspace: Path, change: tuple[str, str, str], says: str
) -> None:
    comment(FILE)
    edit(*change)
    message = refused("make", "last", "--reason", "I know better")
    assert message.startswith("make: can't be kept: "), "and of the others, none is kept"
    assert says in message


def test_code_that_was_never_committed(workspace: Path) -> None:
    from dvc.repo import Repo

    edit("stages/last.py", "LAST", "import os\nLAST")
    with Repo(".") as repo:
        repo.reproduce()
    edit("stages/last.py", "import os\n", "")
    assert "stages/last.py (no commit holds what it was) may change its result" in refused("last@a")
    accept("last@a", "--reason", "back to what it was")
    (record,) = read_accepted()
    assert [(file.path, file.change) for file in record.files] == [
        ("stages/last.py", "no commit holds what it was")
    ]


def test_files_that_come_and_go_are_code(workspace: Path) -> None:
    Path(f"{ROOM}/more.py").write_text("")
    Path(f"{ROOM}/words.yaml").unlink()
    accept("make", "--reason", "none of them is read")
    (record,) = read_accepted()
    assert [(file.path, file.change) for file in record.files] == [
        (f"{ROOM}/more.py", "added"),
        (f"{ROOM}/words.yaml", "removed"),
    ]
    assert record.files[0].before is None
    assert record.files[1].after is None


def test_code_that_is_newly_listed_needs_a_reason(workspace: Path) -> None:
    Path("stages/more.py").write_text("")
    edit("dvc.yaml", "stages/make.py,", "stages/make.py, stages/more.py,")
    assert "stages/more.py (not a dependency before) may change its result" in refused("make")
    accept("make", "--reason", "it was imported before")
    assert out_of_date() == set()


def test_another_library_needs_a_reason(workspace: Path) -> None:
    edit("requirements/results.lock", "torch==2", "torch==3")
    assert "requirements/results.lock (not Python, YAML or JSON) may change its result" in refused("make")
    accept("--all", "--reason", "the same arithmetic")
    assert out_of_date() == set()


def test_git_takes_it_back(workspace: Path) -> None:
    """Nothing of it is in DVC's run cache, from where the kept result would come back."""
    from dvc.repo import Repo

    git(workspace, "add", "dvc.lock")
    git(workspace, "commit", "-qm", "results")
    edit("stages/make.py", "MADE = 1", "MADE = 2")
    accept("--all", "--reason", "not used")
    assert out_of_date() == set()
    git(workspace, "checkout", "dvc.lock")
    assert out_of_date() == {"make"}
    times = Path("made.txt").stat().st_mtime_ns
    with Repo(".") as repo:
        repo.reproduce()
    assert Path("made.txt").stat().st_mtime_ns != times


def test_a_damaged_record_is_refused_before_anything_is_written(workspace: Path) -> None:
    comment(FILE)
    before = Path("dvc.lock").read_bytes()
    for content in ("{", "[]", json.dumps({"accepted": [{"stage": "make"}]})):
        Path("accepted.json").write_text(content)
        assert "accepted.json: not what `erv accept` writes" in str(accept("make").exception)
        assert Path("dvc.lock").read_bytes() == before


def test_without_git_it_says_so(workspace: Path) -> None:
    comment(FILE)
    shutil.rmtree(".git")
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n")
    assert "git can't say what the code was" in refused("make")


@pytest.mark.slow
def test_the_pipeline_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stages of the real `dvc.yaml`, after a comment in files that nearly all of them depend on."""
    folder = finish(tmp_path / "it")
    monkeypatch.chdir(folder)
    git(folder, "config", "user.name", "Ada")
    git(folder, "config", "user.email", "ada@example.org")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "code")
    comment("src/erv/manifest.py")
    comment("src/erv/policies/common/policy.py")
    many = out_of_date()
    assert {"ingest@mafw", "sft", "grpo@erv", "evaluate@erv", "report"} <= many
    assert f"{len(many)} results kept" in accept("--all").output
    assert out_of_date() == set()


def test_what_is_code_is_what_decides_the_keys_of_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for name, stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].items():
        code = [path for path in stage["deps"] if is_code(path) and not path.startswith(VERSIONS)]
        assert len(code) == len(code_of(name)), name
        assert all(is_code(path) for path in code_of(name)), name
