"""What `erv run --dry` says, on a real repository of git and DVC."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from erv.commands.run import command
from erv.doctor.foreseen import Foreseen, Foresight, Why
from erv.doctor.foresight_text import duration, lines
from erv.errors import ErvError
from tests.support.paths import ROOT

PIPELINE = """
stages:
  make:
    matrix: {letter: [a, b]}
    cmd: cat source_${item.letter}.txt > made_${item.letter}.txt
    deps: ["source_${item.letter}.txt", stages/make.py, src/erv/rewards]
    params: [sft]
    outs: ["made_${item.letter}.txt"]
  join:
    cmd: cat made_a.txt made_b.txt > joined.txt
    deps: [made_a.txt, made_b.txt, stages/join.py]
    params: [grpo.beta]
    outs: [joined.txt]
  last:
    cmd: cp joined.txt last.txt
    deps: [joined.txt]
    outs: [last.txt]
  alone:
    cmd: cp made_b.txt alone.txt
    deps: [made_b.txt]
    outs: [alone.txt]
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("finished") / "it"
    for name in ("src/erv/rewards", "stages"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "source_a.txt").write_text("a")
    (folder / "source_b.txt").write_text("b")
    (folder / "stages/make.py").write_text("MADE = 1\n")
    (folder / "stages/join.py").write_text("JOINED = 1\n")
    (folder / "src/erv/rewards/accuracy.py").write_text("RIGHT = 1\n")
    git(folder, "init", "-q")
    with contextlib.chdir(folder):
        Repo.init(".").close()
        with Repo(".") as repo:
            repo.reproduce()
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


@pytest.fixture
def workspace(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "it", symlinks=True)
    monkeypatch.chdir(tmp_path / "it")
    return tmp_path / "it"


def edit(path: str, before: str, after: str) -> None:
    text = Path(path).read_text()
    assert before in text
    Path(path).write_text(text.replace(before, after, 1))


def content(folder: Path) -> dict[str, bytes]:
    """All that a run could change: files and DVC's objects, not its scratch."""
    left_out = {".git", "tmp"}
    files = (path for path in folder.rglob("*") if path.is_file() and not left_out & {*path.parts})
    return {str(path): path.read_bytes() for path in files}


def dry(*arguments: str) -> Result:
    before = content(Path())
    result = CliRunner().invoke(command, ["--dry", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit | ErvError):
        raise result.exception
    assert content(Path()) == before, "it changes nothing"
    return result


def foreseen(*arguments: str) -> dict[str, Any]:
    document = json.loads(dry("--json", *arguments).output)
    return {stage["name"]: stage for stage in document["stages"]}


def states(*arguments: str) -> dict[str, str]:
    return {name: stage["state"] for name, stage in foreseen(*arguments).items()}


def why(stage: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(item[key] for key in ("what", "name", "before", "after")) for item in stage["why"]]


NOTHING = dict.fromkeys(("make@a", "make@b", "join", "last", "alone"), "unchanged")


def test_nothing_to_do(workspace: Path) -> None:
    assert states() == NOTHING
    assert dry().output.startswith("5 stages: 5 need nothing\n")


def test_all_that_follows_is_named_with_what_changed(workspace: Path) -> None:
    steps = yaml.safe_load(Path("params.yaml").read_text())["sft"]["max_steps"]
    edit("params.yaml", f"max_steps: {steps} ", "max_steps: 7 ")
    edit("source_a.txt", "a", "other")
    found = foreseen()
    assert {name: stage["state"] for name, stage in found.items()} == {
        "make@a": "runs",
        "make@b": "runs",
        "join": "follows",
        "last": "follows",
        "alone": "follows",
    }
    assert why(found["make@b"]) == [("parameter", "sft.max_steps", steps, 7)]
    assert [item[:2] for item in why(found["make@a"])] == [
        ("parameter", "sft.max_steps"),
        ("data", "source_a.txt"),
    ]
    assert [item[:2] for item in why(found["join"])] == [("follows", "make@a"), ("follows", "make@b")]
    text = dry().output
    assert f"make@b: runs, time unknown\n  parameter sft.max_steps {steps} -> 7\n" in text
    assert "  data source_a.txt has changed\n" in text
    assert "alone: follows, time unknown\n  reads what make@b would write\n" in text
    assert "5 stages: 2 would run; 3 would follow, unless what they read stays the same\n" in text
    assert "time: unknown\n" in text
    assert "no MLflow server is configured" in text.replace("\n  ", " ")


def test_a_changed_stage_in_the_middle_runs_no_other_branch(workspace: Path) -> None:
    edit("stages/join.py", "JOINED = 1", "JOINED = 2")
    found = foreseen()
    assert {name: stage["state"] for name, stage in found.items()} == NOTHING | {
        "join": "runs",
        "last": "follows",
    }
    assert found["join"]["why"][0]["name"] == "stages/join.py"
    assert found["join"]["why"][0]["change"] == "code"
    assert states("make") == {"make@a": "unchanged", "make@b": "unchanged"}
    assert set(states("last")) == {"make@a", "make@b", "join", "last"}


def test_the_file_in_a_room_is_named_and_what_can_be_kept(workspace: Path) -> None:
    edit("src/erv/rewards/accuracy.py", "RIGHT = 1", "RIGHT = 1  # always")
    text = dry().output
    assert "  code src/erv/rewards/accuracy.py (comments, docstrings or formatting)\n" in text
    assert text.count("nothing that runs has changed: `erv accept` keeps the result") == 2
    edit("src/erv/rewards/accuracy.py", "RIGHT = 1", "RIGHT = 2")
    assert "erv accept" not in dry().output


def test_what_the_cache_has_does_not_run(workspace: Path) -> None:
    Path("made_a.txt").unlink()
    Path("joined.txt").unlink()
    assert states() == NOTHING | {"make@a": "from cache", "join": "from cache"}
    assert "(deleted)" in dry().output
    edit("stages/join.py", "JOINED = 1", "JOINED = 2")
    assert states() == NOTHING | {"make@a": "from cache", "join": "runs", "last": "follows"}


def run_only(stage: str) -> None:
    from dvc.repo import Repo

    with Repo(".") as repo:
        repo.reproduce([stage], single_item=True)


@pytest.mark.parametrize("damage", ["deleted", "modified"])
def test_what_comes_from_the_cache_is_compared_with_what_its_reader_read(
    workspace: Path, damage: str
) -> None:
    edit("source_a.txt", "a", "other")
    run_only("make@a")
    if damage == "deleted":
        Path("made_a.txt").unlink()
    else:
        Path("made_a.txt").write_text("a")  # what `join` read, but not what `make@a` wrote last
    found = foreseen()
    assert {name: stage["state"] for name, stage in found.items()} == NOTHING | {
        "make@a": "from cache",
        "join": "runs",
        "last": "follows",
    }
    (reason,) = found["join"]["why"]
    assert (reason["what"], reason["name"]) == ("data", "made_a.txt")
    assert reason["before"] != reason["after"]


def test_what_comes_from_the_cache_is_compared_in_folders_too(workspace: Path) -> None:
    edit("dvc.yaml", "outs: [last.txt]", "outs: [kept/last, kept/list.txt]")
    make = "mkdir -p kept/last && cp joined.txt kept/last && echo > kept/list.txt"
    edit("dvc.yaml", "cp joined.txt last.txt", make)
    more = """
  whole: {cmd: ls kept > whole.txt, deps: [kept], outs: [whole.txt]}
  inside: {cmd: cp kept/last/joined.txt inside.txt, deps: [kept/last/joined.txt], outs: [inside.txt]}
  other: {cmd: cp kept/list.txt other.txt, deps: [kept/list.txt], outs: [other.txt]}
"""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text() + more)
    reproduce()
    nothing = NOTHING | dict.fromkeys(("whole", "inside", "other"), "unchanged")
    shutil.rmtree("kept/last")
    Path("kept/list.txt").unlink()
    assert states() == nothing | {"last": "from cache"}
    edit("source_a.txt", "a", "other")
    for stage in ("make@a", "join", "last"):
        run_only(stage)
    shutil.rmtree("kept/last")
    newer = {"last": "from cache", "whole": "runs", "inside": "runs"}
    assert states() == nothing | newer
    run_only("last")
    assert states() == nothing | {"whole": "runs", "inside": "runs"}, "as DVC sees what was put back"


def reproduce() -> None:
    from dvc.repo import Repo

    with Repo(".") as repo:
        repo.reproduce()


def test_an_earlier_run_with_the_same_inputs_comes_from_the_cache(workspace: Path) -> None:
    from dvc.repo import Repo

    edit("source_a.txt", "a", "other")
    assert states()["make@a"] == "runs"
    with Repo(".") as repo:
        repo.reproduce()
    edit("source_a.txt", "other", "a")
    found = states()
    assert found["make@a"] == "from cache"
    assert found["make@b"] == "unchanged"
    assert (found["join"], found["last"]) == ("follows", "follows"), "what it reads is another"


def test_outputs_that_are_lost_are_made_again(workspace: Path) -> None:
    Path("made_a.txt").unlink()
    shutil.rmtree(".dvc/cache")
    found = foreseen()
    assert found["make@a"]["state"] == "runs"
    assert found["make@a"]["why"][0]["what"] == "output"


def test_force_and_what_never_ran(workspace: Path) -> None:
    assert set(states("--force").values()) == {"runs"}
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    del lock["stages"]["alone"]
    Path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    shutil.rmtree(".dvc/cache/runs")
    found = foreseen()
    assert found["alone"]["why"][0]["what"] == "never ran"
    assert {name: stage["state"] for name, stage in found.items()} == NOTHING | {"alone": "runs"}


def test_one_stage_alone(workspace: Path) -> None:
    edit("stages/join.py", "JOINED = 1", "JOINED = 2")
    assert states("--only", "join") == {"join": "runs"}
    assert states("--only", "alone") == {"alone": "unchanged"}
    assert states("--only", "alone", "--force") == {"alone": "runs"}
    assert "refused" not in dry("--only", "join").output
    assert states("--only", "last") == {"last": "follows"}
    said = "`--only` would be refused: what it reads of join isn't up to date; run `erv run last`"
    assert said in dry("--only", "last").output
    assert "make is 2 stages, expected one" in str(dry("--only", "make").exception)


def test_one_stage_alone_is_refused_for_what_lies_further_up(workspace: Path) -> None:
    """As `erv run --only` refuses: DVC would put that output back, and then compare what follows it."""
    made = next(
        out["path"] for out in yaml.safe_load(Path("dvc.lock").read_text())["stages"]["make@a"]["outs"]
    )
    shutil.rmtree(made) if Path(made).is_dir() else Path(made).unlink()
    said = (
        "`--only` would be refused: what it reads of join isn't up to date, because of make@a; run `erv run"
    )
    assert said in dry("--only", "last").output


def test_where_a_time_was_measured_is_said() -> None:
    found = seen(None, 65.0, 4.0)
    moved = replace(found, stages=(replace(found.stages[0], elsewhere="on gpu-box"), found.stages[1]))
    text = list(lines(moved))
    assert "grpo@0: runs, took 1 min 05 s last time, on gpu-box" in text
    assert "grpo@1: runs, took 4 s last time" in text
    assert " ".join(" ".join(text).split()).endswith("; some of it was measured elsewhere")
    assert not any("elsewhere" in line for line in lines(found))


def test_what_is_wrong_is_said(workspace: Path) -> None:
    assert "no stage 'nothing' in dvc.yaml" in str(dry("nothing").exception)
    assert dry("--deploy").exit_code == 2
    assert CliRunner().invoke(command, ["--json"]).exit_code == 2


def test_what_would_be_sent_elsewhere_is_said(workspace: Path) -> None:
    """Results that DVC has are not sent; what the run would refuse is said now."""
    edit("params.yaml", "beta: 0.02 ", "beta: 0.03 ")
    git(workspace, "commit", "-qam", "beta")
    placed = ("--placement", "join=gpu", "--placement", "make=gpu")
    found = foreseen(*placed)
    assert {name: stage["pool"] for name, stage in found.items()} == {
        **dict.fromkeys(("make@a", "make@b", "last", "alone"), ""),
        "join": "gpu",
    }
    text = dry(*placed).output
    assert "join: runs in work pool gpu, time unknown\n" in text
    assert "  in work pool gpu: join; Prefect can't be asked whether a worker serves it\n" in text
    assert "refused" not in text
    assert "pool" not in dry().output
    edit("stages/join.py", "1", "2")
    text = " ".join(dry(*placed).output.split())
    assert "the run would be refused: uncommitted changes in stages/join.py: a worker runs a commit" in text
    assert "placement names jion, which is no stage" in str(dry("--placement", "jion=gpu").exception)


def seen(price: float | None, *seconds: float | None) -> Foresight:
    stages = tuple(
        Foreseen(f"grpo@{number}", "runs", (Why("command"),), value) for number, value in enumerate(seconds)
    )
    unknown = tuple(stage.name for stage in stages if stage.seconds is None)
    total = sum(value or 0.0 for value in seconds)
    return Foresight(stages, total, max((value or 0.0 for value in seconds), default=0.0), unknown, price)


def test_time_and_price(workspace: Path) -> None:
    text = list(lines(seen(2.5, 7200.0, 3600.0)))
    assert "grpo@0: runs, took 2 h 00 min last time" in text
    assert "time: 3 h 00 min one after another; the longest chain takes 2 h 00 min" in text
    assert (
        "price: 5.00 if stages run side by side wherever they can, 7.50 one after another, at 2.5 an hour"
        in " ".join(" ".join(text).split())
    )
    text = list(lines(seen(None, 65.0, None)))
    assert "time: 1 min 05 s one after another, without grpo@1, whose time is unknown" in text
    assert not any(line.startswith("price") for line in text)
    assert seen(2.0, 1800.0, None).document()["price"] == 1.0
    assert [duration(value) for value in (0.4, 59.6, 3599.0, 90000.0)] == [
        "0 s",
        "1 min 00 s",
        "59 min 59 s",
        "25 h 00 min",
    ]


def test_one_stage_is_one_stage() -> None:
    def said(*states: str) -> str:
        stages = tuple(Foreseen(f"grpo@{number}", state) for number, state in enumerate(states))  # type: ignore[arg-type]
        return list(lines(Foresight(stages, 0.0, 0.0, (), None)))[-1 if "from remote" not in states else 0]

    assert said("unchanged") == "1 stage: 1 needs nothing"
    assert said("unchanged", "unchanged") == "2 stages: 2 need nothing"
    assert said("from remote") == "1 stage: 1 has its results in DVC's remote"
    assert "1 would follow, unless what it reads stays the same" in " ".join(
        list(lines(Foresight((Foreseen("sft", "follows"),), 0.0, 0.0, (), None)))
    )


def test_the_price_of_stages_side_by_side(workspace: Path) -> None:
    """A machine is paid by the hour, whatever number of stages it works on."""
    found = seen(2.0, 1800.0, 1800.0)
    assert (found.document()["price"], found.document()["least_price"]) == (2.0, 1.0)
    single = [line for line in lines(seen(2.0, 1800.0)) if line.startswith("price")]
    assert single == ["price: 1.00, at 2 an hour (machine.price_per_hour)"]


def test_it_can_be_read_in_100_columns() -> None:
    long = Why("parameter", "variants.erv.rewards", [{"name": "format"}] * 20, [{"name": "accuracy"}] * 20)
    many = tuple(Why("follows", f"evaluate@policy_number_{number}") for number in range(30))
    wide = Foresight(
        (Foreseen("report", "runs", (long, *many)),), 0.0, 0.0, ("report",), None, ("word " * 80,)
    )
    assert max(map(len, lines(wide))) <= 100
