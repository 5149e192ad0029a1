"""What a sweep may be asked for: faults are told before anything is made, and it goes on as it began."""

import dataclasses
import shutil
import subprocess

import pytest
from dvc.repo import Repo

from erv.environment import Environment
from erv.errors import ErvError, SettingsError
from erv.sweep.begin import Begun, Wish, begin, check
from erv.sweep.folder import Folder
from tests.support.paths import ROOT

PIPELINE = """
stages:
  sft:
    cmd: "true"
    params: [sft, seed]
    outs: [models/policy/sft]
"""
WISH = Wish("beta", over=("sft.batch_size=4:64",), stage="sft", seed=3, propose=False)
ALONE = Wish("beta", propose=False)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    tmp_path = tmp_path_factory.mktemp("clone")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    Repo.init(str(tmp_path)).close()
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / ".gitignore").write_text("/.erv/\n/models/\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "state"], check=True)
    return Environment(workspace=tmp_path)


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
        ({"prune": False}, "prune (True then, False now)"),
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
    check(clone, dataclasses.replace(ALONE, seed=3, stage="sft", metric="loss", prune=True))
    check(clone, dataclasses.replace(WISH, seed=None))


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
