"""What `erv doctor` and `erv run --dry` say of stages that run elsewhere, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from erv.doctor.finding import Finding
from erv.doctor.placement_check import placement
from erv.environment import Environment, child_environment
from erv.stack.prefect_api import ask
from erv.storage.store import open_store
from tests.integration.scratch import Scratch

pytestmark = pytest.mark.integration


@pytest.fixture
def scratch(stack: Environment, tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    made = Scratch(tmp_path_factory.mktemp("ahead"), stack)
    (made.folder / ".gitignore").write_text("/.erv/\n/src\n/flows\n")
    commit(made.folder)
    return made


def commit(folder: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder)]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "state"], check=True)


def place(scratch: Scratch, text: str) -> None:
    path = scratch.folder / "params.yaml"
    path.write_text(path.read_text().replace("  placement: {} ", f"  placement: {text} "))


def found(scratch: Scratch) -> list[Finding]:
    return list(placement(scratch.environment))


def test_nothing_is_said_where_nothing_is_placed(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(scratch) == []
    monkeypatch.setenv("ERV_PLACED_IN", "gpu")
    (left,) = found(scratch)
    assert (left.state, left.remedy) == ("warn", "`unset ERV_PLACED_IN`, unless that is wanted")


def test_pool_commit_and_board(scratch: Scratch, stack: Environment) -> None:
    place(scratch, "{join: ahead}")
    missing, board = found(scratch)
    assert (missing.state, missing.detail) == ("fail", "join in work pool ahead: Prefect has no such pool")
    assert missing.remedy == "start `erv run --worker --pool ahead` on a machine that is to do it"
    bucket = scratch.environment.dvc_bucket
    assert board == Finding("placement", "ok", f"requests and results can be left in s3://{bucket}/remote")
    assert open_store(stack).list(f"s3://{bucket}/remote") == [], "and nothing stays"

    variables = child_environment(scratch.environment, scratch.variables())
    subprocess.run(
        [sys.executable, "-m", "flows.shared_pools", "ahead"], cwd=scratch.folder, env=variables, check=True
    )
    (scratch.folder / "work.py").open("a").write("# more\n")
    unserved, changed, _ = found(scratch)
    assert (unserved.state, unserved.detail) == ("warn", "join in work pool ahead: no worker serves it")
    assert (changed.state, changed.detail) == (
        "warn",
        "uncommitted changes in work.py: no stage would be sent",
    )
    assert changed.remedy.startswith("commit them, or set machine.carry_changes: true")

    document = json.loads(scratch.erv("run", "--dry", "--json").stdout)
    nobody = {"name": "ahead", "stages": ["join"], "state": "unserved", "workers": 0}
    assert document["pools"] == [nobody]
    said = " ".join(scratch.erv("run", "--dry").stdout.split())
    assert "in work pool ahead: join; no worker serves it; start `erv run --worker --pool ahead`" in said
    assert "the run would be refused: uncommitted changes in work.py" in said

    for count, words in enumerate(["one worker serves it", "2 workers serve it"], start=1):
        body = {"name": f"worker-{count}", "heartbeat_interval_seconds": 600}
        ask(stack, "/work_pools/ahead/workers/heartbeat", body)
        served, *_ = found(scratch)
        assert (served.state, served.detail) == ("ok", f"join in work pool ahead: {words}")


def test_a_shallow_clone_and_a_step_that_is_no_stage(scratch: Scratch, tmp_path: Path) -> None:
    place(scratch, "{join: ahead}")
    commit(scratch.folder)
    shallow = tmp_path / "shallow"
    address = f"file://{scratch.folder}"
    subprocess.run(["git", "clone", "-q", "--depth", "1", address, str(shallow)], check=True)
    import dataclasses

    here = dataclasses.replace(scratch.environment, workspace=shallow)
    refused = next(item for item in placement(here) if "shallow" in item.detail)
    assert (refused.state, refused.remedy) == ("fail", "run `git fetch --unshallow`")
    path = shallow / "params.yaml"
    path.write_text(path.read_text().replace("{join: ahead}", "{jion: ahead}"))
    from erv.doctor.doctor import _found_by

    (unknown,) = _found_by(placement, here)
    assert unknown.state == "fail"
    assert "placement names jion, which is no stage of dvc.yaml" in unknown.detail + unknown.remedy


def test_a_board_that_refuses(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    place(scratch, "{join: ahead}")
    lost = dataclasses.replace(scratch.environment, dvc_bucket="no-such-bucket-here")
    (board,) = [item for item in placement(lost) if "no-such-bucket-here" in item.detail]
    assert board.state == "fail"
