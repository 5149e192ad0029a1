"""Remedies: users of shared servers are never sent to a stack of their own."""

from __future__ import annotations

import ast
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from erv.comparison.sides import find_side
from erv.doctor.clone_check import stack, variables
from erv.doctor.doctor import _found_by
from erv.doctor.foresight import _times
from erv.doctor.lacks import _base
from erv.doctor.workspace_check import sources
from erv.environment import (
    Environment,
    clone_state,
    command_for,
    connected_servers,
    connection_lines,
    load_environment,
    own_environment,
    remedy_for,
    sample_remedy,
)
from erv.errors import RegistryError, SettingsError, StackError, StorageError
from erv.settings import load_settings
from erv.settings.profile import load_profile
from erv.storage.store import open_store
from tests.support.paths import ROOT

# What decides; and what speaks only of servers that it knows to be this workspace's own.
DECIDES = {"src/erv/environment/written.py", "src/erv/environment/servers.py"}
DECIDES |= {"src/erv/stack/switch.py", "src/erv/commands/stack.py"}
DECIDES |= {"src/erv/errors.py"}  # the table of exit codes
DECIDES |= {"src/erv/stack/control.py"}  # the header of the file that it writes
# What starts servers, or brings the sample to where the data is.
STARTS = re.compile(r"erv stack (up|status)|stack up|stack-up|make (data|demo)|sample-data --upload")


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ERV_S3_ENDPOINT", "ERV_S3_ACCESS_KEY", "ERV_S3_SECRET_KEY", "ERV_MLFLOW_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ERV_PREFECT_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared(clean: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A team's MLflow and nothing else."""
    monkeypatch.setenv("ERV_MLFLOW_URI", "http://mlflow.example")
    return clean


def test_where_nothing_is_configured_a_stack_can_be_started(clean: Path) -> None:
    for server in ("S3", "MLflow", "Prefect"):
        assert remedy_for(server) == "run `erv stack up`"
        assert command_for(server) == "erv stack up"


def test_what_is_missing_beside_shared_servers_is_to_be_set(shared: Path) -> None:
    assert remedy_for("MLflow") == "check ERV_MLFLOW_URI and the server, then run `erv connect`"
    assert remedy_for("Prefect") == "set ERV_PREFECT_API_URL and run `erv connect`"
    assert remedy_for("S3") == "set ERV_S3_ENDPOINT and run `erv connect`"
    assert {command_for(server) for server in ("S3", "MLflow", "Prefect")} == {"erv connect"}


def test_a_server_of_our_own_beside_a_shared_one(shared: Path) -> None:
    (shared / ".erv").mkdir()
    (shared / ".erv/stack.env").write_text("ERV_PREFECT_API_URL=http://127.0.0.1:1/api\n")
    assert remedy_for("Prefect", own="look") == "look"
    assert remedy_for("S3") == "run `erv stack up`"
    # `erv connect` would give up the stack, and refuse as long as no object store is named.
    assert remedy_for("MLflow") == (
        "check ERV_MLFLOW_URI and the server, or unset ERV_MLFLOW_*: this clone has its own stack"
    )
    assert {command_for(server) for server in ("S3", "MLflow", "Prefect")} == {"erv stack up"}


@pytest.fixture
def connected(clean: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that `erv connect` has connected, in a new shell."""
    theirs = Environment(
        clean,
        s3_endpoint="http://s3.example",
        s3_access_key="them",
        s3_secret_key="hidden-1",
        mlflow_uri="http://mlflow.example",
        mlflow_token="hidden-2",
        prefect_api_url="http://prefect.example/api",
        dvc_bucket="team-dvc",
    )
    (clean / ".erv").mkdir()
    theirs.connected_file.write_text("\n".join(connection_lines(theirs)))
    return clean


def test_a_connected_clone_is_told_which_variables_its_shell_lacks(connected: Path) -> None:
    kept = (connected / ".erv/connected.env").read_text()
    assert "hidden" not in kept
    assert "ERV_MLFLOW_TOKEN=\n" in kept
    assert remedy_for("Prefect") == (
        "this clone is connected to Prefect at http://prefect.example/api: set"
        " ERV_PREFECT_API_URL=http://prefect.example/api in this shell"
        " (`erv connect` lists all that it lacks)"
    )
    assert "set ERV_MLFLOW_URI=http://mlflow.example and ERV_MLFLOW_TOKEN in this shell" in remedy_for(
        "MLflow"
    )
    assert "set ERV_S3_ENDPOINT=http://s3.example and ERV_S3_ACCESS_KEY and" in remedy_for("S3")
    assert {command_for(server) for server in ("S3", "MLflow", "Prefect")} == {"erv connect"}
    with pytest.raises(StorageError) as refused:
        open_store(load_environment())
    assert "this clone is connected to S3 at http://s3.example" in str(refused.value)
    assert str(refused.value).count("ERV_S3_ENDPOINT") == 1
    (finding,) = (one for one in _found_by(stack, load_environment()))
    assert (finding.state, finding.remedy) == ("fail", "set what `erv connect` lists")
    assert (
        "connected to S3 at http://s3.example, MLflow at http://mlflow.example, Prefect at" in finding.detail
    )


def test_what_is_set_is_not_asked_for(connected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERV_PREFECT_API_URL", "http://elsewhere.example/api")
    assert remedy_for("Prefect") == "check ERV_PREFECT_API_URL and the server, then run `erv connect`"
    assert "set ERV_MLFLOW_URI=http://mlflow.example" in remedy_for("MLflow")
    assert set(connected_servers(load_environment())) == {"S3", "MLflow"}


def test_keys_alone_are_missing(connected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called Amazon S3, as the address was set and so not among what is missing."""
    monkeypatch.setenv("ERV_S3_ENDPOINT", "http://s3.example")
    assert connected_servers(load_environment())["S3"] == "http://s3.example"


def test_a_password_in_an_address_is_not_kept(clean: Path) -> None:
    theirs = Environment(clean, mlflow_uri="http://ann:hidden@mlflow.example")
    (clean / ".erv").mkdir()
    theirs.connected_file.write_text("\n".join(connection_lines(theirs)))
    assert theirs.connected_file.read_text() == "ERV_MLFLOW_URI="
    assert "to MLflow at your team's address: set ERV_MLFLOW_URI in this shell" in remedy_for("MLflow")


def test_a_connected_clone_does_not_use_the_stack_that_it_had(connected: Path) -> None:
    """Half of its commands went to the stack that it had before."""
    (connected / ".erv/stack.env").write_text(
        "ERV_PREFECT_API_URL=http://127.0.0.1:1/api\nERV_S3_ACCESS_KEY=mine\nERV_S3_SECRET_KEY=mine\n"
    )
    assert clone_state(connected) == "connected"
    assert load_environment().prefect_api_url is None
    assert not load_environment().has_storage
    assert own_environment().prefect_api_url == "http://127.0.0.1:1/api"
    assert "this clone is connected to Prefect at http://prefect.example/api" in remedy_for("Prefect")
    (connected / ".erv/connected.env").unlink()
    assert clone_state(connected) == "own stack"
    assert remedy_for("Prefect") == "run `erv stack up`"
    (connected / ".erv/stack.env").unlink()
    assert clone_state(connected) == "neither"


def test_a_team_without_a_server_is_not_sent_to_a_stack(
    connected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shell without variables it was."""
    record = connected / ".erv/connected.env"
    lines = [line for line in record.read_text().splitlines() if "PREFECT" not in line]
    record.write_text("\n".join(lines))
    assert remedy_for("Prefect") == "set ERV_PREFECT_API_URL and run `erv connect`"


def test_a_shell_that_names_other_servers_than_the_clone_uses(
    connected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERV_S3_ENDPOINT", "http://elsewhere.example")
    (finding,) = _found_by(variables, load_environment())
    assert finding.detail == "the shell's ERV_S3_ENDPOINT differ from .erv/connected.env"
    assert finding.state == "warn", "without keys it names no store"
    assert "`erv connect` change what the clone uses" in finding.remedy
    monkeypatch.delenv("ERV_S3_ENDPOINT")
    monkeypatch.setenv("ERV_MLFLOW_URI", "http://elsewhere.example")
    (finding,) = _found_by(variables, load_environment())
    assert finding.state == "fail"
    assert finding.detail.startswith(
        "the shell's ERV_MLFLOW_URI differ from .erv/connected.env, so runs, pub"
    )


def test_a_shell_that_names_servers_beside_the_own_stack(shared: Path) -> None:
    """It was a warning, and `erv publish` put a version into the other registry."""
    (shared / ".erv").mkdir()
    (shared / ".erv/stack.env").write_text("ERV_MLFLOW_URI=http://127.0.0.1:1\n")
    (finding,) = _found_by(variables, load_environment())
    assert finding.state == "fail"
    assert finding.remedy == "`unset ERV_MLFLOW_URI`, or `erv connect` to use servers of others"


def test_the_sample_is_no_remedy_where_the_data_is_everybodys(
    connected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have started a private stack, and put the sample into the team's bucket."""
    shutil.copy(ROOT / "params.yaml", connected)
    (finding,) = _found_by(sources, load_environment())
    assert finding.remedy.startswith("take data/sources/*.lock.json from your team's commit, or pin")
    base = {one.name: one for one in _base(load_environment(), load_settings(), load_profile("demo"), None)}
    assert base["base policy"].remedy.startswith("take data/sources/*.lock.json from your team's commit")
    assert sample_remedy() is None
    (connected / ".erv/connected.env").unlink()
    (finding,) = _found_by(sources, load_environment())
    assert finding.remedy == "`make data`, or `erv data pin`"
    monkeypatch.setenv("ERV_S3_ACCESS_KEY", "them")
    monkeypatch.setenv("ERV_S3_SECRET_KEY", "hidden-1")
    assert sample_remedy() is None, "Amazon's own"


def test_a_copy_in_which_dvc_runs_an_experiment_is_connected_like_its_original(
    connected: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path_factory.mktemp("copy")
    assert remedy_for("MLflow", copy) == "run `erv stack up`"
    monkeypatch.setenv("DVC_ROOT", str(connected))
    assert "connected to MLflow" in remedy_for("MLflow", copy)


def test_a_damaged_record_is_named(connected: Path) -> None:
    (connected / ".erv/connected.env").write_text("nothing\n")
    with pytest.raises(
        SettingsError, match=r"connected.env, line 1: .*; delete the file and run `erv connect`"
    ):
        remedy_for("S3")


def test_the_messages_that_users_of_shared_servers_read(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from erv.lineage.trace import Provenance
    from erv.tracking.opening import open_run

    with pytest.raises(StorageError, match="no object store is configured; set ERV_S3_ENDPOINT and run"):
        open_store(load_environment())
    monkeypatch.delenv("ERV_MLFLOW_URI")
    monkeypatch.setenv("ERV_PREFECT_API_URL", "http://prefect.example/api")
    assert "set ERV_MLFLOW_URI and run `erv connect`" in _times(load_environment(), ["sft"], "cpu")[1]
    with caplog.at_level(logging.INFO):
        open_run(load_environment(), "sft", "sft")
    assert "so nothing is tracked; to track, set ERV_MLFLOW_URI and run `erv connect`" in caplog.text
    with pytest.raises(RegistryError, match="set ERV_MLFLOW_URI and run `erv connect`, or say DATASET/CLIP"):
        Provenance(load_environment(), None).trace("models:/erv/1")
    with pytest.raises(RegistryError, match=r"set ERV_MLFLOW_URI and run `erv connect`$"):
        Provenance(load_environment(), None).version("models:/erv/1")  # only a version is wanted: no clip


def test_a_remedy_is_for_the_workspace_that_is_meant(
    connected: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`erv compare` of another folder's workspace said what to do in the folder it was started in."""
    from erv.stack.reach import require

    elsewhere = Environment(tmp_path_factory.mktemp("elsewhere"))
    for target in ("champion", "0" * 32):
        with pytest.raises(RegistryError, match="no MLflow server is named; run `erv stack up`"):
            find_side(target, elsewhere, load_settings(ROOT / "params.yaml"))
    with pytest.raises(StackError, match="no MLflow server is configured; run `erv stack up`"):
        require("MLflow", None, elsewhere.workspace)


# Functions that say what to do, and their arguments with the workspace.
ABOUT_A_WORKSPACE = {
    **dict.fromkeys(("remedy_for", "command_for", "is_shared"), 2),
    **dict.fromkeys(("require", "unreachable", "wait_for"), 3),
    "server_version": 5,
    "explain": 5,
}


def test_whoever_asks_for_a_remedy_names_the_workspace() -> None:
    found = []
    for folder in ("src", "flows"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                    continue
                given = list(node.args)
                given += [item for item in node.args if isinstance(item, ast.Starred)]  # name and address
                named = any(word.arg == "workspace" for word in node.keywords)
                if not named and len(given) < ABOUT_A_WORKSPACE.get(node.func.id, 0):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}")
    assert found == []


def test_no_message_decides_by_itself() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("src", "flows", "stages")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if str(path.relative_to(ROOT)) not in DECIDES
        for line, text in strings(path)
        if STARTS.search(text) and text != "see `erv stack status`"
    }
    assert found == set(), "ask erv.environment.remedy_for or command_for"


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """The literal texts of a module that aren't documentation, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value
