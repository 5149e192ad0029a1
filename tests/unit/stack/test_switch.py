"""Which stores a clone takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.environment import load_environment
from erv.errors import StackError
from erv.stack.switch import check_store

KEYS = "ERV_S3_ACCESS_KEY=key\nERV_S3_SECRET_KEY=secret-1\n"
OWN = f"ERV_S3_ENDPOINT=http://127.0.0.1:1\nERV_DVC_BUCKET=erv-dvc\n{KEYS}"
THEIRS = {
    "ERV_S3_ENDPOINT": "http://s3.example",
    "ERV_S3_ACCESS_KEY": "them",
    "ERV_S3_SECRET_KEY": "secret-2",
}


def write(workspace: Path, text: str, name: str = "stack.env") -> None:
    (workspace / ".erv").mkdir(exist_ok=True)
    (workspace / ".erv" / name).write_text(text)


@pytest.mark.parametrize(
    ("process", "named"),
    [
        ({"ERV_DVC_BUCKET": "theirs"}, "ERV_DVC_BUCKET=theirs"),
        ({"ERV_RAW_BUCKET": "theirs"}, "ERV_RAW_BUCKET=theirs"),
        ({"ERV_ARTIFACT_BUCKET": "theirs"}, "ERV_ARTIFACT_BUCKET=theirs"),
        # A worker that was started while the clone was connected.
        (
            {**THEIRS, "ERV_DVC_BUCKET": "theirs"},
            "ERV_S3_ENDPOINT=http://s3.example, ERV_DVC_BUCKET=theirs",
        ),
        ({"ERV_S3_ENDPOINT": ""}, "ERV_S3_ENDPOINT="),  # Amazon's own
        ({"ERV_S3_ENDPOINT": "http://u:hidden@s3.example"}, "ERV_S3_ENDPOINT=http://u:***@s3.example"),
    ],
)
def test_a_clone_with_its_own_stack_takes_no_other_store(
    tmp_path: Path, process: dict[str, str], named: str
) -> None:
    write(tmp_path, OWN)
    with pytest.raises(StackError) as refused:
        check_store(load_environment(tmp_path, process=process))
    variables = " ".join(item.partition("=")[0] for item in named.split(", "))
    assert str(refused.value) == (
        f"this clone uses its own stack, but {named} names another store than .erv/stack.env; unset"
        f" {variables} where this was started, or run `erv connect` to use servers of others"
    )


@pytest.mark.parametrize(
    ("stack", "process"),
    [
        (OWN, {}),
        (OWN, {"ERV_S3_ENDPOINT": "http://127.0.0.1:1", "ERV_RAW_BUCKET": "erv-raw"}),
        (OWN, {"ERV_MLFLOW_URI": "http://mlflow.example"}),
        # A stack of MLflow and Prefect alone has keys for an S3, but none of its own.
        (f"ERV_MLFLOW_URI=http://127.0.0.1:2\nERV_DVC_BUCKET=erv-dvc\n{KEYS}", THEIRS),
        (None, THEIRS),
    ],
)
def test_it_takes_its_own_and_one_that_it_has_nothing_beside(
    tmp_path: Path, stack: str | None, process: dict[str, str]
) -> None:
    if stack is not None:
        write(tmp_path, stack)
    check_store(load_environment(tmp_path, process=process))


def test_a_queued_experiment_takes_that_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    write(tmp_path, OWN)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    check_store(load_environment(copy))
    monkeypatch.setenv("ERV_DVC_BUCKET", "theirs")
    with pytest.raises(StackError, match="ERV_DVC_BUCKET=theirs names another store"):
        check_store(load_environment(copy))
