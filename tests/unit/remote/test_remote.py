"""What decides whether a worker lives, which stages go where, and what a commit takes along."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from erv.pipeline import PipelineStage, TargetError, read_stages
from erv.remote.commit import CommitError, changes_to_carry, commit_of, git, patch_bytes, patch_id
from erv.remote.key import inputs_of_entry, stage_key
from erv.remote.placement import places, read_from
from erv.remote.pulse import DEAD_SECONDS, Watched
from erv.remote.request import Request, RequestError, read_request
from tests.support.paths import ROOT


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_counter_that_stands_still() -> None:
    clock = Clock()
    watched = Watched(clock)
    assert watched.look(1) == 0
    for count in (2, 3, 3):
        clock.now += 3
        still = watched.look(count)
    assert still == 3
    for _ in range(16):
        clock.now += 3
        still = watched.look(3)
    assert still > DEAD_SECONDS
    clock.now += 3
    assert watched.look(4) == 0, "a worker that wakes up in time is welcome"


def test_time_in_which_nobody_could_look_does_not_count() -> None:
    """The store was away for an hour, or this process was stopped: the worker had no chance to be seen."""
    clock = Clock()
    watched = Watched(clock)
    watched.look(1)
    clock.now += 3600
    assert watched.look(1) < 10
    clock.now += 3
    assert watched.look(2) == 0


STAGES = [
    PipelineStage("sft", (), "true", (), ()),
    PipelineStage("grpo@erv", ("sft",), "true", (), ()),
    PipelineStage("grpo@r1", ("sft",), "true", (), ()),
]


def test_a_stage_counts_before_its_step() -> None:
    assert places(STAGES, {}) == {}
    assert places(STAGES, {"grpo": "gpu"}) == {"grpo@erv": "gpu", "grpo@r1": "gpu"}
    assert places(STAGES, {"grpo": "gpu", "grpo@r1": "cpu"}) == {"grpo@erv": "gpu", "grpo@r1": "cpu"}
    with pytest.raises(TargetError, match=r"placement names gpro, .* expected some of sft, grpo"):
        places(STAGES, {"gpro": "gpu"})


def test_a_stage_needs_what_its_command_names() -> None:
    """grpo depends on hashes of the manifests alone; sent without the manifests, it failed."""
    stages = {stage.name: stage for stage in read_stages(ROOT)}
    needed = read_from(stages["grpo@erv"], list(stages.values()))
    assert {"ingest@mafw", "extract@dfew", "leakage", "sft", "train_erv"} <= set(needed)
    assert not [name for name in needed if name.startswith(("validate", "distill", "evaluate", "grpo"))]
    for stage in stages.values():
        assert set(stage.upstream) <= set(read_from(stage, list(stages.values())))


def test_the_key_is_of_the_inputs_alone() -> None:
    entry = {
        "cmd": "true",
        "deps": [{"path": "a", "md5": "0" * 32, "size": 3}],
        "params": {"params.yaml": {"grpo.learning_rate": 2e-05}},
        "outs": [{"path": "b", "md5": "1" * 32}],
    }
    inputs = inputs_of_entry(entry)
    assert inputs == inputs_of_entry({**entry, "outs": []})
    assert inputs != inputs_of_entry({**entry, "cmd": "false"})
    assert stage_key(inputs) == stage_key(inputs)
    assert stage_key(inputs) != stage_key(inputs, "a forced run")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for command in (
        ["init", "-q"],
        ["config", "user.name", "t"],
        ["config", "user.email", "t@example.org"],
    ):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: 'true', deps: [src/a.py, my folder]}}\n")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("x = 1\n")
    (tmp_path / "src/b.py").write_text("x = 1\n")
    subprocess.run(["git", "-C", tmp_path, "add", "-A"], check=True)
    subprocess.run(["git", "-C", tmp_path, "commit", "-qm", "one"], check=True)
    return tmp_path


def test_uncommitted_changes_are_refused_or_carried(repository: Path, tmp_path_factory) -> None:
    (repository / "params.yaml").write_text("seed: 2\n")
    (repository / "dvc.lock").write_text("schema: '2.0'\n")
    (repository / "notes.txt").write_text("not read by any stage\n")
    assert changes_to_carry(repository, carry=False) is None, "these travel apart, or don't matter"
    (repository / "src/a.py").write_text("x = 2\n")
    (repository / "src/new.py").write_bytes(bytes(range(256)))
    (repository / "src/b.py").unlink()
    with pytest.raises(CommitError, match=r"uncommitted changes in src/a.py, src/b.py, src/new.py: .*commit"):
        changes_to_carry(repository, carry=False)
    index = (repository / ".git/index").read_bytes()
    patch = changes_to_carry(repository, carry=True)
    assert patch is not None
    assert (repository / ".git/index").read_bytes() == index, "what the user has staged stays as it is"
    other = tmp_path_factory.mktemp("other") / "clone"
    git(repository, "clone", "-q", str(repository), str(other))
    git(other, "apply", "--binary", "-", given=patch_bytes(patch))
    assert (other / "src/a.py").read_text() == "x = 2\n"
    assert (other / "src/new.py").read_bytes() == bytes(range(256))
    assert not (other / "src/b.py").exists()
    assert (other / "params.yaml").read_text() == "seed: 1\n"
    assert patch_id(patch) == patch_id(str(changes_to_carry(repository, carry=True)))


def test_names_and_settings_of_a_user_change_no_patch(
    repository: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renamed file, or one with a letter that git writes as a number, was left out without a word.

    A text that isn't UTF-8 ended the run in a stack trace.
    """
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[diff]\n  noprefix = true\n  external = /bin/false\n[color]\n  ui = always\n"
        "[core]\n  autocrlf = true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    subprocess.run(["git", "-C", repository, "mv", "src/b.py", "src/größe 2.py"], check=True)
    (repository / "src/a.py").write_bytes("x = 'größer'\n".encode("latin-1"))
    with pytest.raises(CommitError, match=r"in src/a.py, src/b.py, src/größe 2\.py: a worker"):
        changes_to_carry(repository, carry=False)
    no_text = os.fsdecode(b"gr\xf6sse.py")
    (repository / "src" / no_text).write_text("x = 5\n")
    patch = changes_to_carry(repository, carry=True)
    assert patch is not None
    other = tmp_path_factory.mktemp("other") / "clone"
    git(repository, "clone", "-q", str(repository), str(other))
    git(other, "apply", "--binary", "-", given=patch_bytes(patch))
    assert sorted(path.name for path in (other / "src").iterdir()) == sorted(["a.py", no_text, "größe 2.py"])
    assert (other / "src/a.py").read_bytes() == (repository / "src/a.py").read_bytes()


def test_a_shallow_clone_is_refused(repository: Path, tmp_path_factory) -> None:
    assert len(commit_of(repository)) == 40
    (repository / "src/a.py").write_text("x = 3\n")
    subprocess.run(["git", "-C", repository, "commit", "-qam", "two"], check=True)
    shallow = tmp_path_factory.mktemp("shallow") / "clone"
    git(repository, "clone", "-q", "--depth", "1", f"file://{repository}", str(shallow))
    with pytest.raises(CommitError, match="git fetch --unshallow"):
        commit_of(shallow)


def request() -> Request:
    return Request(
        stage="grpo@erv",
        upstream=("sft",),
        commit="0" * 40,
        inputs="1",
        files={"dvc.lock": "", "params.yaml": ""},
        bucket="erv-dvc",
        experiment="erv",
        asked_by="t",
    )


def test_a_request_is_read_as_it_was_written() -> None:
    import json

    found = read_request(json.loads(json.dumps(request().document())))
    assert (found.stage, list(found.upstream), found.files) == ("grpo@erv", ["sft"], request().files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "has version 2, this worker reads 1"),
        ({"stage": "--help"}, "damaged"),
        ({"commit": "--upload-pack=x"}, "damaged"),
        ({"upstream": ["../x"]}, "damaged"),
        ({"files": {"../.bashrc": "x"}}, "damaged"),
        ({"variables": {"LD_PRELOAD": "x"}}, "damaged"),
        ({"stage": 3}, "damaged"),
    ],
)
def test_a_request_that_asks_for_something_else_is_refused(change: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_request({**request().document(), **change})
