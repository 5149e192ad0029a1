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


def make_clone(folder: Path, ignored: str = "") -> Environment:
    folder.mkdir(exist_ok=True)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder)]
    subprocess.run([*git, "init", "-q"], check=True)
    Repo.init(str(folder)).close()
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    (folder / "dvc.yaml").write_text(PIPELINE)
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
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(source, elsewhere)
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
        status = ["git", "-C", str(checkout), "status", "--porcelain"]
        assert "raw" not in subprocess.run(status, check=True, capture_output=True, text=True).stdout

    dataclasses.replace(lock, uri="../elsewhere").save(locks / "films.lock.json")
    other = Folder(clone, "out")
    plan = begin(clone, other, dataclasses.replace(WISH, name="out"), cancelled=not_cancelled).plan
    with pytest.raises(SettingsError, match=r"films.lock.json: ../elsewhere leads out of the clone"):
        other.checkout(plan, ("one",), ())
