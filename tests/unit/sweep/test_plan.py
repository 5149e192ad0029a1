"""What a sweep was begun with is kept, and stays as it is."""

import dataclasses
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import SettingsError, StackError
from erv.sweep.folder import Folder
from erv.sweep.plan import check_name, read_plan
from tests.unit.sweep.test_study import plan


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    plan(overrides=("grpo.max_steps=4",)).save(tmp_path)
    assert read_plan(tmp_path) == plan(overrides=("grpo.max_steps=4",))
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(SettingsError, match=r"plan\.json: damaged"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("space", {"grpo.beta": "0.1:0.2"}, "the parameters to vary"),
        ("seed", 9, "seed (3 then, 9 now)"),
        ("parameters", "q", "params.yaml, and"),
        ("commit", "d", "the commit (c then, d now)"),
    ],
)
def test_another_wish_under_its_name_is_refused(name: str, value: object, said: str) -> None:
    plan().require_same(plan())
    with pytest.raises(SettingsError) as caught:
        plan().require_same(dataclasses.replace(plan(), **{name: value}))
    assert said in str(caught.value)
    assert "give its name alone to go on as it began" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 41, "-a"])
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(SettingsError, match="expected at most 40 letters"):
        check_name(name)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    environment = Environment(workspace=tmp_path)
    with (
        Folder(environment, "beta").alone(),
        Folder(environment, "other").alone(),
        pytest.raises(StackError, match="sweep 'beta' runs already"),
        Folder(environment, "beta").alone(),
    ):
        pass
    with Folder(environment, "beta").alone():
        pass
