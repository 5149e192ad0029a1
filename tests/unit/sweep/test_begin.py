"""What a sweep may be asked for: faults are told before anything is made, and it goes on as it began."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from erv.environment import Environment
from erv.errors import ErvError, SettingsError
from erv.pinning import pin
from erv.settings import load_settings
from erv.sources.selection import Selection
from erv.sweep.begin import Begun, begin, check
from erv.sweep.folder import Folder
from erv.sweep.wish import Wish
from tests.support.paths import ROOT

PIPELINE = """
stages:
  sft:
    cmd: "true"
    params: [sft, seed]
    outs: [models/policy/sft]
"""
WISH = Wish("beta", over=("sft.batch_size=4:64",), stage="sft", seed=3, propose="no")
ALONE = Wish("beta", propose="no")


def make_clone(folder: Path, ignored: str = "", pipeline: str = PIPELINE) -> Environment:
    folder.mkdir(exist_ok=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    Repo.init(str(folder)).close()
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    (folder / "dvc.yaml").write_text(pipeline)
    (folder / ".gitignore").write_text(f"/.erv/\n/models/\n{ignored}")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "state"], check=True)
    return Environment(workspace=folder)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def begun(clone: Environment) -> Begun:
    folder = Folder(clone, "beta")
    with folder.alone():
        return begin(clone, folder, WISH, cancelled=not_cancelled)


def not_cancelled() -> bool:
    return False


def test_a_sweep_goes_on_as_it_began_whatever_dvc_yaml_says_now(clone: Environment, begun: Begun) -> None:
    assert begun.new
    now = clone.workspace / "dvc.yaml"
    now.write_text(PIPELINE.replace("sft", "other"))
    again = begin(clone, begun.folder, ALONE, cancelled=not_cancelled)
    now.write_text(PIPELINE)
    assert again == dataclasses.replace(begun, new=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": ("sft.max_steps=5",)}, "what is set in all trials ( then, sft.max_steps=5 now)"),
        ({"seed": 4}, "seed (3 then, 4 now)"),
        ({"sampler": "random"}, "sampler (tpe then, random now)"),
        ({"prune": "no"}, "prune (True then, False now)"),
        ({"prune_after": 9}, "prune_after (4 then, 9 now)"),
        ({"direction": "maximize"}, "direction (minimize then, maximize now)"),
    ],
)
def test_options_that_differ_from_the_beginning_are_refused(
    clone: Environment, begun: Begun, changes: dict[str, object], said: str
) -> None:
    assert begun.plan.seed == 3
    with pytest.raises(SettingsError) as caught:
        check(clone, dataclasses.replace(ALONE, **changes))  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_options_that_say_the_same_are_fine(clone: Environment, begun: Begun) -> None:
    assert begun.plan.seed == 3
    check(clone, dataclasses.replace(ALONE, seed=3, stage="sft", metric="loss", prune="yes"))
    check(clone, dataclasses.replace(WISH, seed=-1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "größe"}, "expected at most 40 letters"),
        ({"over": ()}, "a sweep needs parameters to vary"),
        ({"over": ("seed=1:5",)}, "seed decides what loss is measured on or by"),
        ({"over": ("sft.bach_size=1:5",)}, "there is no parameter sft.bach_size"),
        ({"over": ("grpo.beta=0.1:0.2",)}, "grpo.beta makes no difference to sft"),
        ({"stage": "grpo"}, "grpo"),
    ],
)
def test_a_fault_leaves_no_folder(clone: Environment, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ErvError) as caught:
        check(clone, dataclasses.replace(WISH, **({"name": "new"} | changes)))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert not (clone.state / "sweeps" / "new").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_uncommitted_changes_reach_a_trial_byte_by_byte(tmp_path: Path, encoding: str) -> None:
    prompt = tmp_path / "data/prompts/p.txt"
    prompt.parent.mkdir(parents=True)
    prompt.write_bytes("Wie groß ist die Freude?\nZeile 2\nZeile 3\n".encode(encoding))
    clone = make_clone(tmp_path)
    parameters = tmp_path / "params.yaml"
    parameters.write_text(parameters.read_text().replace("carry_changes: false", "carry_changes: true"))
    prompt.write_bytes("Wie groß ist die Freude?\nZeile 2\nSie ist größer: 喜\n".encode(encoding, "ignore"))
    folder = Folder(clone, "beta")
    plan = begin(clone, folder, WISH, cancelled=not_cancelled).plan
    checkout = folder.checkout(plan, ("one",), ())
    assert (checkout / "data/prompts/p.txt").read_bytes() == prompt.read_bytes()

    kept = folder.begun / "changes.patch"
    kept.write_bytes(kept.read_bytes().replace(b"Sie ist", b"Sie war"))
    with pytest.raises(SettingsError, match="not the uncommitted changes with which the sweep began"):
        folder.checkout(plan, ("other",), ())
    kept.unlink()
    with pytest.raises(SettingsError, match="not the uncommitted changes with which the sweep began"):
        folder.checkout(plan, ("other",), ())


def test_relative_paths_lead_to_the_clones_files_from_a_trial(tmp_path: Path) -> None:
    """They led into the trial's checkout, and every trial failed."""
    clone = make_clone(tmp_path / "clone", ignored="/raw/\n/.venv-vllm/\n/data/sources/\n")
    source = clone.workspace / "raw/films"
    source.mkdir(parents=True)
    (source / "00001.mp4").write_bytes(b"film")
    python = clone.workspace / ".venv-vllm/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    locks = clone.workspace / "data/sources"
    lock = pin("films", str(source), None, selection=Selection())
    dataclasses.replace(lock, uri="raw/films").save(locks / "films.lock.json")
    folder = Folder(clone, "beta")
    plan = begin(clone, folder, WISH, cancelled=not_cancelled).plan
    for key in ("one", "one", "two"):  # the second time, it is there
        checkout = folder.checkout(plan, (key,), ())
        assert (checkout / "raw/films/00001.mp4").read_bytes() == b"film"
        assert load_settings(checkout / "params.yaml").machine.grpo.vllm_python == str(python)
        assert "raw" not in status_of(checkout)


def pinned(clone: Environment, name: str, uri: str) -> None:
    """Pins a folder by a path that is relative to the clone."""
    lock = pin(name, str(clone.workspace / uri), None, selection=Selection())
    dataclasses.replace(lock, uri=uri).save(clone.workspace / f"data/sources/{name}.lock.json")


def status_of(checkout: Path) -> str:
    status = ["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(status, check=True, capture_output=True, text=True).stdout


READING = """
  extract:
    cmd: cat data/sources/films.lock.json
    outs: [data/films]
  sft:
    cmd: "true"
    deps: [data/sources/base.lock.json, data/films]
    params: [sft, seed]
    outs: [models/policy/sft]
  evaluate:
    cmd: read --judge data/sources/judge.lock.json
    deps: [models/policy/sft]
"""


@pytest.mark.parametrize(
    ("name", "propose", "fault"),
    [
        ("base", "no", "sft"),
        ("judge", "yes", "evaluate"),
        ("judge", "no", None),
        ("films", "yes", None),
        ("unused", "yes", None),
    ],
)
def test_a_path_that_leads_out_of_the_clone_is_refused_where_a_trial_reads_it(
    tmp_path: Path, name: str, propose: str, fault: str | None
) -> None:
    """It was refused trial by trial, of sources that no trial reads, too."""
    clone = make_clone(tmp_path / "clone", ignored="/data/\n", pipeline=f"stages:{READING}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/00001.mp4").write_bytes(b"film")
    locks = clone.workspace / "data/sources"
    locks.mkdir(parents=True)
    pinned(clone, name, "../elsewhere")
    wish = dataclasses.replace(WISH, propose=propose, overrides=("register.policy=sft",))
    if fault is None:
        check(clone, wish)
        return
    with pytest.raises(SettingsError) as caught:
        check(clone, wish)
    assert str(caught.value) == (
        f"data/sources/{name}.lock.json: ../elsewhere leads out of the clone, and {fault} reads it in"
        " checkouts elsewhere; pin the source by its absolute path before the sweep begins"
    )
    assert not (clone.state / "sweeps").exists()


def test_sources_within_each_other_or_partly_in_git_are_there_in_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outer one of two had no link, nor one of which git has a file; a template may lack `info`."""
    (tmp_path / "template").mkdir()
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "template"))
    (tmp_path / "clone/some").mkdir(parents=True)
    (tmp_path / "clone/some/README.md").write_text("in git")
    clone = make_clone(
        tmp_path / "clone", ignored="/raw/\n/data/sources/\n/odd*\n/some/*\n!/some/README.md\n"
    )
    files = ["raw/2.mp4", "raw/films/1.mp4", "some/3.mp4", "some/deep/4.mp4", "odd [a] *#/5.mp4"]
    for name in files:
        (clone.workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (clone.workspace / name).write_bytes(name.encode())
    for name, uri in [("a", "raw/films"), ("b", "raw"), ("c", "some"), ("d", "odd [a] *#")]:
        pinned(clone, name, uri)
    (clone.workspace / "some/later.txt").write_text("not pinned")
    folder = Folder(clone, "beta")
    checkout = folder.checkout(begin(clone, folder, WISH, cancelled=not_cancelled).plan, ("one",), ())
    for name in files:
        assert (checkout / name).read_bytes() == name.encode()
    assert not (checkout / "some/later.txt").exists()
    assert {line.split()[-1] for line in status_of(checkout).splitlines()} <= {"params.yaml"}
    assert sorted(path.name for path in (clone.workspace / "raw").rglob("*")) == ["1.mp4", "2.mp4", "films"]
