"""The trials of a sweep: equal suggestions for equal seeds, even after a kill; pruning; counts."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy.exc

from erv.sweep.command import command
from erv.sweep.errors import SweepError
from erv.sweep.plan import Plan
from erv.sweep.study import FILE, Row, Study, StudyAway, read_study, table


def plan(**changes: object) -> Plan:
    values = {
        "name": "beta",
        "space": {"grpo.beta": "0.01:0.2:log", "grpo.loss_type": "grpo,dapo"},
        "overrides": (),
        "stage": "grpo@erv",
        "metric": "accuracy",
        "direction": "maximize",
        "seed": 3,
        "sampler": "tpe",
        "prune": True,
        "prune_after": 2,
        "commit": "c",
        "patch": "",
        "parameters": "p",
    }
    return Plan(**(values | changes))  # type: ignore[arg-type]


def values_of(overrides: tuple[str, ...]) -> float:
    """What a trial with these values is worth: the less beta the better."""
    return 1.0 - float(overrides[0].partition("=")[2])


def run(study: Study, trials: int) -> list[tuple[str, ...]]:
    asked = []
    for _ in range(trials):
        one = study.ask()
        asked.append(one.overrides)
        study.done(one.number, values_of(one.overrides))
    return asked


def test_the_same_seed_suggests_the_same(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    first = run(Study(folders[0], plan()), 8)
    assert run(Study(folders[1], plan()), 8) == first
    assert run(Study(folders[2], plan(seed=4)), 8) != first
    assert len(set(first)) == 8


def test_an_interrupted_sweep_suggests_what_it_would_have(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = run(Study(tmp_path / "whole", plan()), 8)
    found = run(Study(tmp_path / "cut", plan()), 3)
    killed = Study(tmp_path / "cut", plan()).ask()
    again = Study(tmp_path / "cut", plan())
    assert again.requeue() == [killed.number]
    rest = run(again, 5)
    assert rest[0] == killed.overrides
    assert [*found, *rest] == whole
    assert again.requeue() == []
    rows = again.rows()
    assert [row.overrides for row in rows] == whole, "the one that was cut short is told once"
    assert {row.state for row in rows} == {"done"}
    assert again.settled() == 8


def test_two_interruptions_in_a_row_queue_it_once(tmp_path: Path) -> None:
    killed = Study(tmp_path, plan()).ask()
    Study(tmp_path, plan()).requeue()
    last = Study(tmp_path, plan())
    assert last.requeue() == []
    assert run(last, 2)[0] == killed.overrides
    assert last.settled() == 2


def test_a_trial_that_is_worse_than_the_median_is_pruned(tmp_path: Path) -> None:
    study = Study(tmp_path, plan())
    for value in (0.5, 0.6):
        one = study.ask()
        assert not study.report(one.number, value, 1)
        study.done(one.number, value)
    good, bad = study.ask(), study.ask()
    assert not study.report(good.number, 0.9, 1)
    assert study.report(bad.number, 0.1, 1)
    study.pruned(bad.number)
    study.done(good.number, 0.9)
    assert study.best() == study.rows()[2]
    assert [row["state"] for row in table(study.rows(), "accuracy")] == [
        "done",
        "done",
        "done",
        "pruned at step 1",
    ]


def test_nothing_is_pruned_if_that_is_off(tmp_path: Path) -> None:
    study = Study(tmp_path, plan(prune=False))
    for value in (0.9, 0.9, 0.9, 0.1):
        one = study.ask()
        assert not study.report(one.number, value, 1)
        study.done(one.number, value)


def test_a_failure_is_kept_with_its_reason(tmp_path: Path) -> None:
    study = Study(tmp_path, plan())
    one = study.ask()
    study.failed(one.number, "the loss is not finite")
    (row,) = Study(tmp_path, plan()).rows()
    assert (row.state, row.message, row.overrides) == ("failed", "the loss is not finite", one.overrides)
    assert study.best() is None


@pytest.mark.parametrize(("direction", "best"), [("maximize", 2), ("minimize", 1)])
def test_the_best(tmp_path: Path, direction: str, best: int) -> None:
    study = Study(tmp_path, plan(direction=direction))
    for value in (0.2, 0.1, 0.3):
        study.done(study.ask().number, value)
    found = study.best()
    assert found is not None
    assert found.number == best


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_a_failure(tmp_path: Path, value: float) -> None:
    study = Study(tmp_path, plan())
    one = study.ask()
    assert not study.report(one.number, value, 1)
    study.done(one.number, value)
    (row,) = study.rows()
    assert row.state == "failed"
    assert f"the value is {value}" in row.message
    assert study.settled() == 1
    assert study.best() is None


def test_nothing_runs_without_a_process(tmp_path: Path) -> None:
    study = Study(tmp_path, plan())
    study.ask()
    assert [row.state for row in study.rows()] == ["running"]
    assert [row.state for row in study.rows(at_work=False)] == ["interrupted"]


def test_a_repeat_says_whose_values_it_has(tmp_path: Path) -> None:
    study = Study(tmp_path, plan())
    study.done(study.ask().number, 0.5)
    study.done(study.ask().number, 0.5, "the same values as trial 0")
    assert [row["note"] for row in table(study.rows(), "accuracy")] == ["", "the same values as trial 0"]


def test_a_locked_file_is_away_for_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("erv.sweep.study._LOCKED_SECONDS", 0.1)
    study = Study(tmp_path, plan())
    one = study.ask()
    with closing(sqlite3.connect(tmp_path / FILE)) as reader:
        reader.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StudyAway):
            study.report(one.number, 0.5, 1)
        monkeypatch.setattr(study._trials[one.number], "report", lambda *_: pytest.fail("it waits again"))
        with pytest.raises(StudyAway):  # in which time nobody would read what the trial prints
            study.report(one.number, 0.5, 1)
    monkeypatch.undo()
    monkeypatch.setattr("erv.sweep.study._PAUSE_SECONDS", 0)
    assert not study.report(one.number, 0.5, 1)


@pytest.mark.parametrize("came", ["done", "pruned", "failed"])
def test_what_a_locked_file_does_not_take_is_told_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, came: str
) -> None:
    monkeypatch.setattr("erv.sweep.study._LOCKED_SECONDS", 0.1)
    study = Study(tmp_path, plan())
    one = study.ask()
    tell, said = {
        "done": (lambda: study.done(one.number, 0.75, "a note"), "trial 0 is worth 0.75"),
        "pruned": (lambda: study.pruned(one.number), "trial 0 was pruned"),
        "failed": (lambda: study.failed(one.number, "no clips"), "trial 0 failed (no clips)"),
    }[came]
    with closing(sqlite3.connect(tmp_path / FILE)) as reader:
        reader.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SweepError) as away:
            tell()
        with pytest.raises(SweepError, match="database is locked; close"):
            study.rows()
        with pytest.raises(SweepError, match="database is locked; close"):
            Study(tmp_path, plan())
    assert str(away.value) == (
        f"{tmp_path / FILE}: database is locked, and that {said} isn't noted yet; close what else uses the"
        " file, or restore it, and `erv sweep run beta` goes on with that trial"
    )
    again = Study(tmp_path, plan())
    assert again.requeue() == [0]
    assert run(again, 1) == [one.overrides]
    assert [row.state for row in again.rows()] == ["done"]


def test_a_failure_of_which_only_the_reason_was_noted_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was locked between the two: the trial was told as failed, and ran again all the same."""
    study = Study(tmp_path, plan())
    one = study.ask()
    with monkeypatch.context() as patch:
        patch.setattr(study._study, "tell", lambda *_, **__: pytest.fail("cut short"))
        with pytest.raises(pytest.fail.Exception):
            study.failed(one.number, "no clips")
    again = Study(tmp_path, plan())
    assert again.requeue() == []
    (row,) = again.rows()
    assert (row.state, row.message) == ("failed", "no clips")
    assert again.ask().overrides != one.overrides


@pytest.mark.parametrize("content", [b"no database at all, whatever its name says" * 30, b"SQLite format 3"])
def test_a_damaged_file_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SweepError, match=f"{FILE}: file is not a database; close what else uses"):
        Study(tmp_path, plan())


def test_a_file_that_is_damaged_later_is_told_in_a_sentence(tmp_path: Path) -> None:
    study = Study(tmp_path, plan())
    one = study.ask()
    (tmp_path / FILE).write_bytes(b"nothing" * 1000)
    with pytest.raises(SweepError, match=f"{FILE}: .* and that trial 0 is worth 0.5 isn't noted yet"):
        study.done(one.number, 0.5)


def test_what_is_damaged_need_not_be_text(tmp_path: Path) -> None:
    Study(tmp_path, plan())
    content = (tmp_path / FILE).read_bytes()
    assert b"CREATE TABLE studies" in content
    (tmp_path / FILE).write_bytes(content.replace(b"CREATE TABLE studies", b"CREATE \xceABLE studies"))
    with pytest.raises(SweepError, match=f"{FILE}: .*; close what else uses the file, or restore it"):
        Study(tmp_path, plan())


def test_who_looks_makes_and_writes_nothing(tmp_path: Path) -> None:
    assert read_study(tmp_path, plan()) is None
    assert list(tmp_path.iterdir()) == []
    study = Study(tmp_path, plan())
    study.done(study.ask().number, 0.5)
    before = (tmp_path / FILE).read_bytes()
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")  # which lets others read, and nobody else write
        seen = read_study(tmp_path, plan())
        assert seen is not None
        assert seen.rows() == study.rows()
    assert (tmp_path / FILE).read_bytes() == before
    assert read_study(tmp_path, plan(name="other")) is None


@pytest.mark.parametrize("half", [False, True])
def test_a_file_that_is_being_made_has_no_trials_yet(tmp_path: Path, half: bool) -> None:
    """Who looked was told that a table is missing, and to restore the file."""
    with closing(sqlite3.connect(tmp_path / FILE)) as optuna:
        if half:
            optuna.execute("CREATE TABLE studies (study_id INTEGER NOT NULL)")
    (tmp_path / FILE).touch()
    before = (tmp_path / FILE).read_bytes()
    assert read_study(tmp_path, plan()) is None
    assert (tmp_path / FILE).read_bytes() == before


def test_a_fault_without_words_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(tmp_path, plan())

    def fail(**_: object) -> None:
        raise sqlalchemy.exc.InterfaceError("", None, sqlite3.InterfaceError())

    monkeypatch.setattr(study._study, "get_trials", fail)
    with pytest.raises(StudyAway, match=f"{FILE}: InterfaceError; close what else uses the file"):
        study.rows()


def test_who_looks_at_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database at all, whatever its name says" * 30)
    with pytest.raises(SweepError, match=f"{FILE}: file is not a database; close what else uses"):
        read_study(tmp_path, plan())


def test_the_command_for_the_best_is_quoted() -> None:
    row = Row(0, ("roles.train=[mafw,dfew]", "grpo.beta=0.1"), "done", 0.5)
    assert command(plan(overrides=("sft.max_steps=4",)), row) == (
        "erv run grpo@erv --set sft.max_steps=4 --set 'roles.train=[mafw,dfew]' --set grpo.beta=0.1"
    )
