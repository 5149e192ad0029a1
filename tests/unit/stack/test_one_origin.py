"""Which servers a clone takes: its own, or those that it is connected to, and never some of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.environment import load_environment
from erv.errors import StackError
from erv.stack.one_origin import check_servers

KEYS = "ERV_S3_ACCESS_KEY=key\nERV_S3_SECRET_KEY=secret-1\n"
OWN = f"ERV_S3_ENDPOINT=http://127.0.0.1:1\nERV_DVC_BUCKET=erv-dvc\nERV_MLFLOW_URI=http://127.0.0.1:2\n{KEYS}"
THEIRS = {
    "ERV_S3_ENDPOINT": "http://s3.example",
    "ERV_S3_ACCESS_KEY": "them",
    "ERV_S3_SECRET_KEY": "secret-2",
}
TEAM = {**THEIRS, "ERV_MLFLOW_URI": "http://mlflow.example", "ERV_DVC_BUCKET": "team"}
# As `erv connect` writes it.
RECORD = """ERV_S3_ENDPOINT=http://s3.example
ERV_S3_ACCESS_KEY=them
ERV_S3_SECRET_KEY=
ERV_DVC_BUCKET=team
ERV_MLFLOW_URI=http://mlflow.example
"""


def write(workspace: Path, text: str, name: str = "stack.env") -> None:
    (workspace / ".erv").mkdir(exist_ok=True)
    (workspace / ".erv" / name).write_text(text)


@pytest.mark.parametrize(
    ("process", "named"),
    [
        ({"ERV_DVC_BUCKET": "theirs"}, "ERV_DVC_BUCKET is theirs, there erv-dvc"),
        ({"ERV_RAW_BUCKET": "theirs"}, "ERV_RAW_BUCKET is theirs, there erv-raw"),
        ({"ERV_ARTIFACT_BUCKET": "theirs"}, "ERV_ARTIFACT_BUCKET is theirs, there erv-mlflow"),
        # A worker that was started while the clone was connected.
        (
            {**THEIRS, "ERV_DVC_BUCKET": "theirs"},
            "ERV_S3_ENDPOINT is http://s3.example, there http://127.0.0.1:1;"
            " ERV_DVC_BUCKET is theirs, there erv-dvc",
        ),
        # Amazon's own
        ({"ERV_S3_ENDPOINT": ""}, "ERV_S3_ENDPOINT is not set, there http://127.0.0.1:1"),
        (
            {"ERV_S3_ENDPOINT": "http://u:hidden@s3.example"},
            "ERV_S3_ENDPOINT is http://u:***@s3.example, there http://127.0.0.1:1",
        ),
        # The team's registry would get versions whose outputs nobody else can read.
        (
            {"ERV_MLFLOW_URI": "http://mlflow.example"},
            "ERV_MLFLOW_URI is http://mlflow.example, there http://127.0.0.1:2",
        ),
        (
            {"ERV_PREFECT_API_URL": "http://prefect.example/api"},
            "ERV_PREFECT_API_URL is http://prefect.example/api, there not set",
        ),
    ],
)
def test_a_clone_with_its_own_stack_takes_no_server_of_others(
    tmp_path: Path, process: dict[str, str], named: str
) -> None:
    write(tmp_path, OWN)
    with pytest.raises(StackError) as refused:
        check_servers(load_environment(tmp_path, process=process))
    variables = " ".join(item.partition(" is ")[0] for item in named.split("; "))
    assert str(refused.value) == (
        f"this clone uses its own stack, in .erv/stack.env, but this shell names other servers: {named};"
        f" unset {variables} where this was started, or run `erv connect` to use servers of others"
    )


@pytest.mark.parametrize(
    ("stack", "process"),
    [
        (OWN, {}),
        (OWN, {"ERV_S3_ENDPOINT": "http://127.0.0.1:1", "ERV_RAW_BUCKET": "erv-raw"}),
        (OWN, {"ERV_MLFLOW_URI": "http://127.0.0.1:2/"}),
        # A stack of MLflow and Prefect alone has keys for an S3, but none of its own.
        (f"ERV_MLFLOW_URI=http://127.0.0.1:2\nERV_DVC_BUCKET=erv-dvc\n{KEYS}", THEIRS),
        # CI and containers.
        (None, THEIRS),
        (None, TEAM),
        (None, {"ERV_MLFLOW_URI": "http://mlflow.example"}),
    ],
)
def test_it_takes_its_own_and_those_that_it_has_nothing_beside(
    tmp_path: Path, stack: str | None, process: dict[str, str]
) -> None:
    if stack is not None:
        write(tmp_path, stack)
    check_servers(load_environment(tmp_path, process=process))


def test_a_stack_without_s3_keeps_the_servers_that_it_has(tmp_path: Path) -> None:
    write(tmp_path, f"ERV_MLFLOW_URI=http://127.0.0.1:2\n{KEYS}")
    with pytest.raises(StackError, match=r"ERV_MLFLOW_URI is http://mlflow\.example, there http://127"):
        check_servers(load_environment(tmp_path, process=TEAM))


def test_a_connected_clone_takes_what_it_is_connected_to(tmp_path: Path) -> None:
    write(tmp_path, RECORD, "connected.env")
    write(tmp_path, OWN)  # kept from before, and not used
    check_servers(load_environment(tmp_path, process=TEAM))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"ERV_MLFLOW_URI": "http://127.0.0.1:2"},
            "ERV_MLFLOW_URI is http://127.0.0.1:2, there http://mlflow.example",
        ),
        ({"ERV_DVC_BUCKET": ""}, "ERV_DVC_BUCKET is erv-dvc, there team"),
        (
            {"ERV_PREFECT_API_URL": "http://prefect.example/api"},
            "ERV_PREFECT_API_URL is http://prefect.example/api, there not set",
        ),
    ],
)
def test_a_connected_clone_takes_no_other_server(tmp_path: Path, changed: dict[str, str], named: str) -> None:
    write(tmp_path, RECORD, "connected.env")
    with pytest.raises(StackError) as refused:
        check_servers(load_environment(tmp_path, process={**TEAM, **changed}))
    assert str(refused.value) == (
        "this clone is connected to the servers in .erv/connected.env, but this shell names others:"
        f" {named}; set {named.partition(' is ')[0]} as there, or run `erv connect` to change to those"
    )


def test_an_address_with_a_password_is_not_on_record(tmp_path: Path) -> None:
    write(tmp_path, RECORD.replace("http://mlflow.example", ""), "connected.env")
    check_servers(
        load_environment(tmp_path, process={**TEAM, "ERV_MLFLOW_URI": "http://ann:x@mlflow.example"})
    )


def test_a_shell_that_lacks_what_a_connected_clone_needs_is_refused(tmp_path: Path) -> None:
    """A version was registered whose outputs were on one machine alone, and training went untracked."""
    write(tmp_path, RECORD, "connected.env")
    mlflow = {"ERV_MLFLOW_URI": "http://mlflow.example"}
    with pytest.raises(StackError) as refused:
        check_servers(load_environment(tmp_path, process=mlflow))
    assert str(refused.value) == (
        "this clone is connected to S3 at http://s3.example: set ERV_S3_ENDPOINT=http://s3.example and"
        " ERV_S3_ACCESS_KEY=them and ERV_S3_SECRET_KEY in this shell (`erv connect` lists all that it lacks)"
    )
    check_servers(load_environment(tmp_path, process=mlflow), ("MLflow",))
    with pytest.raises(StackError, match=r"connected to S3 at http://s3\.example, MLflow at http://mlfl"):
        check_servers(load_environment(tmp_path, process={}))
    with pytest.raises(StackError, match=r"to MLflow at http://mlflow\.example: set ERV_MLFLOW_URI=htt"):
        check_servers(load_environment(tmp_path, process={}), ("MLflow",))


def test_a_queued_experiment_takes_those_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    write(tmp_path, OWN)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    check_servers(load_environment(copy))
    monkeypatch.setenv("ERV_DVC_BUCKET", "theirs")
    with pytest.raises(StackError, match="ERV_DVC_BUCKET is theirs, there erv-dvc"):
        check_servers(load_environment(copy))
