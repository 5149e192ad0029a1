"""What a sweep may be asked for: faults are told before anything is made, and it goes on as it began."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from erv.environment import Environment
from erv.errors import SettingsError
from erv.sweep.begin import Wish, begin, check
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


@pytest.fixture
def clone(tmp_path: Path) -> Environment:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    Repo.init(str(tmp_path)).close()
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / ".gitignore").write_text("/.erv/\n/models/\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "state"], check=True)
    return Environment(workspace=tmp_path)


def not_cancelled() -> bool:
    return False


def test_a_sweep_goes_on_as_it_began_whatever_dvc_yaml_says_now(clone: Environment) -> None:
    folder = Folder(clone, "beta")
    with folder.alone():
        first = begin(clone, folder, WISH, cancelled=not_cancelled)
        assert first.new
        (clone.workspace / "dvc.yaml").write_text(PIPELINE.replace("sft", "other"))
        again = begin(clone, folder, ALONE, cancelled=not_cancelled)
    assert again == dataclasses.replace(first, new=False)


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
    clone: Environment, changes: dict[str, object], said: str
) -> None:
    folder = Folder(clone, "beta")
    with folder.alone():
        begin(clone, folder, WISH, cancelled=not_cancelled)
    check(clone, dataclasses.replace(ALONE, seed=3, stage="sft", metric="loss", prune=True))
    check(clone, dataclasses.replace(WISH, seed=None))
    with pytest.raises(SettingsError) as caught:
        check(clone, dataclasses.replace(ALONE, **changes))  # type: ignore[arg-type]
    assert said in str(caught.value)


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
    with pytest.raises(Exception, match=r".") as caught:
        check(clone, dataclasses.replace(WISH, **changes))  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert not (clone.state / "sweeps").exists()
