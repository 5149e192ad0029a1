"""What a clone that is connected to servers of others is told about them."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from erv.commands.stack import command
from erv.errors import StackError
from erv.stack.connect import connect


@pytest.fixture
def url() -> Iterator[str]:
    """A server that answers everything, if only to refuse, as an S3 does without a key."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("ERV_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".erv").mkdir()
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def test_the_state_of_a_connected_clone_is_that_of_the_team_s_servers(
    clone: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setattr(
        http.server.BaseHTTPRequestHandler, "do_GET", lambda self: self.send_error(403), raising=False
    )
    record = clone / ".erv/connected.env"
    record.write_text(f"ERV_S3_ENDPOINT={url}\nERV_MLFLOW_URI={url}\nERV_PREFECT_API_URL={url}/api\n")
    said = CliRunner().invoke(command, ["status"])
    assert said.exit_code == 0
    assert said.stderr == "this clone is connected to servers of others, and runs none of its own\n"
    assert said.stdout.splitlines() == [
        f"S3       answers    {url}",
        f"MLflow   answers    {url}",
        f"Prefect  answers    {url}/api",
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
    record.write_text(f"ERV_S3_ACCESS_KEY=\nERV_MLFLOW_URI={away}\nERV_PREFECT_API_URL=\n")
    said = CliRunner().invoke(command, ["status"])
    assert said.exit_code == 1
    assert said.stdout.splitlines() == [
        "S3       unknown    Amazon S3",
        f"MLflow   away       {away}",
        "Prefect  unknown    your team's address",
    ]


def test_a_clone_without_servers_of_others_is_told_of_its_own(clone: Path) -> None:
    said = CliRunner().invoke(command, ["status"])
    assert (said.exit_code, said.stderr) == (1, "")
    assert [line.split()[:2] for line in said.stdout.splitlines()] == [
        ["s3", "stopped"],
        ["mlflow", "stopped"],
        ["prefect", "stopped"],
    ]


def test_who_connects_for_the_first_time_is_not_told_to_do_it_again(clone: Path) -> None:
    with pytest.raises(StackError) as refused:
        connect(clone)
    assert str(refused.value).endswith("; set what your team gave you, then run `erv connect`")
