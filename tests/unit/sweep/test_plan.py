"""What a sweep was begun with is kept, and stays as it is."""

import dataclasses
import re
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.errors import SettingsError, StackError
from erv.sweep.folder import Folder
from erv.sweep.plan import check_name, key_of, read_plan
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


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 41, "-a", "größe", "a\u0663", "a b"])
def test_names_that_are_no_folders(name: str) -> None:
    with pytest.raises(SettingsError, match="expected at most 40 letters"):
        check_name(name)


def test_no_two_names_share_the_key_of_their_tables() -> None:
    names = ("a-b", "a_b", "A-b", "A_B", "b", "B")
    assert len({key_of(name) for name in names}) == len(names)
    assert key_of("a-b") == "sweep-a-b"
    for name in names:
        assert re.fullmatch("[a-z0-9-]+", key_of(name))


def test_whether_a_process_works_on_it(tmp_path: Path) -> None:
    folder = Folder(Environment(workspace=tmp_path), "beta")
    assert not folder.is_held()
    with Folder(Environment(workspace=tmp_path), "beta").alone():
        assert folder.is_held()
    assert not folder.is_held()


def test_who_asks_whether_a_process_works_on_it_takes_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`erv sweep table` took it for an instant, in which `erv sweep run` was refused."""
    folder = Folder(Environment(workspace=tmp_path), "beta")
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *_, **__: pytest.fail("the lock was taken"))
    assert not folder.is_held()
    assert not folder.path.exists()


def test_the_note_of_a_process_that_was_killed_counts_for_nothing(tmp_path: Path) -> None:
    folder = Folder(Environment(workspace=tmp_path), "beta")
    with folder.alone():
        note = folder.path / "holder.json"
        left = note.read_text()
    for content in (left.replace('"created": 1', '"created": 2'), left[:9], "{}", "[]", '{"pid": "x"}'):
        note.write_text(content)
        assert not folder.is_held(), content
    note.write_text(left)
    assert folder.is_held()


def test_a_checkout_whose_removal_was_cut_short_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".erv").mkdir(parents=True)
    (checkout / ".erv" / "ready").touch()
    monkeypatch.setattr("erv.sweep.folder.remove", lambda path: None)
    assert Folder(Environment(workspace=tmp_path), "beta").discard(checkout)
    assert not (checkout / ".erv" / "ready").exists()


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
