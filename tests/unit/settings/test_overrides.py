"""Overrides of parameters: what they change, and which are refused in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from erv.errors import SettingsError
from erv.settings.overrides import overridden
from tests.support.paths import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def test_one_line_of_the_file_changes_and_its_comment_stays(path: Path) -> None:
    before = path.read_text()
    found = overridden(path, None, ["grpo.beta=0.1"])
    assert [change.text() for change in found.changes] == ["grpo.beta 0.02 → 0.1"]
    pairs = zip(before.splitlines(), found.content.splitlines(), strict=True)
    ((old, new),) = [pair for pair in pairs if pair[0] != pair[1]]
    assert new.split("#")[0].strip() == "beta: 0.1"
    assert new.partition("#")[2] == old.partition("#")[2]
    assert path.read_text() == before, "it only says what would be"


def test_overrides_count_after_the_profile(path: Path) -> None:
    found = overridden(path, "tiny", ["grpo.max_steps=6"])
    values = yaml.safe_load(found.content)
    assert (values["grpo"]["max_steps"], values["sft"]["max_steps"]) == (6, 30)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("roles.train=[mafw]", "[mafw]"),
        ("sources.mafw=s3://other/mafw", "s3://other/mafw"),
        ("sft.lora.enabled=true", "true"),
        ("machine.price_per_hour=2.5", "2.5"),
        ("variants.r1_omni.rewards.explanation=0.5", "0.5"),
    ],
)
def test_values_of_all_kinds(path: Path, override: str, value: str) -> None:
    (change,) = overridden(path, None, [override]).changes
    assert (change.name, change.now) == (override.partition("=")[0], value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["grpo.betta=0.1"],
            "override 'grpo.betta=0.1': there is no parameter grpo.betta; did you mean grpo.beta?",
        ),
        (["nonsense=1"], "there is no parameter nonsense; `erv params show` lists all parameters"),
        (["grpo=3"], "grpo is a section; set one of its parameters, such as grpo.max_steps"),
        (["roles.train.x=1"], "roles.train is one value; set it as a whole"),
        (["grpo.beta"], "override 'grpo.beta': expected NAME=VALUE, such as grpo.beta=0.1"),
        (["+grpo.gamma=1"], "expected NAME=VALUE"),
        (["~grpo"], "expected NAME=VALUE"),
        (["seed=${oc.env:HOME}"], "expected NAME=VALUE"),
        (["seed=1", "seed=2"], "overrides 'seed=1' and 'seed=2' set the same parameter; give one"),
        (["grpo.beta=0.1,0.2"], "override 'grpo.beta=0.1,0.2': not a value that DVC reads"),
        (["grpo.beta=[1"], "override 'grpo.beta=[1': not a value that DVC reads"),
        (["grpo.beta=-1"], "with grpo.beta=-1: grpo.beta: Input should be greater than or equal to 0"),
        (["variants.erv.rewards.joy=1"], "expected format, accuracy, explanation"),
        (["grpo.max_steps=null"], "give exactly one of max_steps and epochs"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(path: Path, overrides: list[str], said: str) -> None:
    before = path.read_bytes()
    with pytest.raises(SettingsError) as caught:
        overridden(path, None, overrides)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == before


def test_an_unknown_profile(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no profile 'tinny', expected one of demo, paper-0\.5b"):
        overridden(path, "tinny", [])


def test_faults_of_the_file_are_told_as_such(path: Path) -> None:
    path.write_text(path.read_text().replace("seed: 101", "seed: -1"))
    with pytest.raises(SettingsError, match=r"params\.yaml: 1 fault\n  - seed"):
        overridden(path, None, ["seed=3"])
