"""`mlflow models serve` of a published model: what it reads, and what its answers give away."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_bundle import write_bundle, write_clip

pytestmark = pytest.mark.integration

START_SECONDS = 180.0


class Server:
    """mlflow's scoring server on 127.0.0.1."""

    def __init__(self, port: int, log: Path, secrets: list[str]) -> None:
        self.port, self.log, self._secrets = port, log, secrets

    def ask(
        self,
        body: Any,
        *,
        path: str = "/invocations",
        method: str = "POST",
        host: str | None = None,
        kind: str | None = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer, in which there is no path of this machine and no stack trace."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Host": host or f"127.0.0.1:{self.port}"} | ({"Content-Type": kind} if kind else {})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        for secret in ("Traceback", "stack_trace", ".py", *self._secrets):
            assert secret not in text
        return answer.status, json.loads(text)

    def clip(self, *names: Any) -> tuple[int, str]:
        """Status and message of a request for clips that can't be answered."""
        status, answer = self.ask({"dataframe_records": [{"clip": name} for name in names]})
        assert set(answer) == {"error_code", "message"}
        assert "\n" not in answer["message"]
        return status, answer["message"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, the folder `clips` that it may read, and a clip outside."""
    import mlflow

    from erv.register.model_content import model_content

    folder = tmp_path_factory.mktemp("serving")
    bundle = folder / "candidate"
    bundle.mkdir()
    mlflow.pyfunc.save_model(folder / "model", **model_content(write_bundle(bundle)))
    clips = folder / "clips"
    (clips / "sub").mkdir(parents=True)
    write_clip(folder / "secret.mp4")
    write_clip(clips / "sub/good.mp4")
    write_clip(clips / "silent.mp4", sound=False)
    (clips / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    (clips / "empty.mp4").touch()
    (clips / "inside.mp4").symlink_to("sub/good.mp4")
    (clips / "outside.mp4").symlink_to("../secret.mp4")
    (clips / "up").symlink_to("..")
    (clips / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(clips / "pipe.mp4")
    return folder


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Server]:
    """The server, started as a user starts it; ends with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "model")]
    command += ["--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "-w", "1"]
    # The server finds `uvicorn` and `python` on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, **variables},
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield Server(port, log, [str(folder), str(Path.home()), sys.prefix])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    hosts = "models.example, *.lab.example"
    with serving(folder, ERV_SERVE_ROOT=str(folder / "clips"), ERV_SERVE_HOSTS=hosts) as server:
        yield server


def test_a_clip_below_the_folder_is_answered(server: Server) -> None:
    for name in ("inside.mp4", "up/clips/sub/good.mp4"):
        status, answer = server.ask({"dataframe_records": [{"clip": name}]})
        assert status == 200
        (row,) = answer["predictions"]
        assert list(row) == ["clip", "answer", "explanation", "agreement", "completion"]
        assert row["clip"] == name
    table = b"clip\nsub/good.mp4\nsub/good.mp4\n"
    assert len(server.ask(table, kind="text/csv")[1]["predictions"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "sub/../../secret.mp4",
        "../../../../etc/../tmp/secret.mp4",
        "sub/../sub/good.mp4",  # whether this exists would tell what `sub` is, and so on upward
        "outside.mp4",
        "up/secret.mp4",
        "loop.mp4",
        "pipe.mp4",
        "sub",
        "gone.mp4",
        "gone\0.mp4",
        "a" * 3000,
    ],
)
def test_what_is_not_a_file_below_the_folder_is_not_read(server: Server, name: str) -> None:
    """One answer for all: it does not tell what there is outside."""
    status, message = server.clip("sub/good.mp4", name)
    assert status == 400
    assert message.startswith("clip '")
    assert message.endswith(": no such file below the served folder")
    assert len(message) < 200


def test_absolute_paths_are_refused(server: Server, folder: Path) -> None:
    for path in ("/etc/passwd", "//etc/passwd", "/gone"):
        expected = f"clip '{path}': name it by its path below the served folder, not by an absolute one"
        assert server.clip(path) == (400, expected)


def test_broken_and_silent_clips_say_why(server: Server) -> None:
    assert server.clip("empty.mp4") == (400, "clip 'empty.mp4': the file is empty")
    status, message = server.clip("broken.mp4")
    assert status == 400
    assert message.startswith("clip 'broken.mp4': container can't be read")
    assert "no sound track" in server.clip("silent.mp4")[1]


NO_TABLE = "the request is not a table with the one column clip, of texts; send for example"


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"{", "application/json", 400, NO_TABLE),
        (b"[1]", "application/json", 400, NO_TABLE),
        ({"dataframe_records": [{"video": "a.mp4"}]}, "application/json", 400, NO_TABLE),
        ({"dataframe_records": [{"clip": 7}]}, "application/json", 400, "a clip has no name"),
        ({"dataframe_records": [{"clip": None}]}, "application/json", 400, "a clip has no name"),
        ({"dataframe_records": [{"clip": "\ud800"}]}, "application/json", 400, NO_TABLE),
        (b"[" * 500_000, "application/json", 400, NO_TABLE),
        (b'{"dataframe_records": ' + b'[{"clip": ' * 100_000, "application/json", 400, NO_TABLE),
        (b'{"dataframe_records": [{"clip": ' + b"9" * 5000 + b"}]}", "application/json", 400, NO_TABLE),
        (b'"a', "text/csv", 400, NO_TABLE),
        (b"PAR1", "application/vnd.apache.parquet", 400, NO_TABLE),
        (b"{}", "text/plain", 415, "send the table as application/json"),
        (b"{}", None, 415, "send the table as application/json"),
        ({"dataframe_records": [{"clip": "a.mp4"}] * 65}, "application/json", 400, "at most 64 are answered"),
    ],
)
def test_other_requests_get_one_sentence(
    server: Server, body: Any, kind: str | None, status: int, said: str
) -> None:
    found, answer = server.ask(body, kind=kind)
    assert found == status
    assert said in answer["message"]
    assert "\n" not in answer["message"]


def test_a_request_that_is_too_large_is_refused(server: Server) -> None:
    said = {
        "error_code": "REQUEST_ENTITY_TOO_LARGE",
        "message": "the request is larger than 1048576 bytes; name fewer clips",
    }
    assert server.ask(b" " * (1 << 20) + b"{}") == (413, said)
    chunks = iter([b" " * (1 << 19)] * 3)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "POST", "/invocations", chunks, {"Content-Type": "application/json"}, encode_chunked=True
    )
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (413, said)
    connection.close()


def test_only_hosts_of_this_server_are_answered(server: Server) -> None:
    body = {"dataframe_records": [{"clip": "gone.mp4"}]}
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", "localhost@evil"):
        status, answer = server.ask(body, host=host)
        assert status == 400
        assert "the Host header is not one of this server's; ERV_SERVE_HOSTS names more" in answer["message"]
    for host in (
        "localhost",
        f"localhost:{server.port}",
        f"[::1]:{server.port}",
        "models.example",
        "a.lab.example:80",
    ):
        assert "no such file" in server.ask(body, host=host)[1]["message"]


def test_nothing_else_is_served(server: Server) -> None:
    for path in ("/docs", "/openapi.json", "/redoc", "/clips/sub/good.mp4"):
        assert server.ask(b"", path=path, method="GET")[0] == 404


def test_without_a_folder_or_without_the_guard_nothing_is_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard would be missing after an update of mlflow that makes its application in another way."""
    import mlflow
    import pandas as pd

    from erv.errors import DataError

    table = pd.DataFrame({"clip": ["sub/good.mp4"]})
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    with pytest.raises(
        DataError, match="reads no clips: ERV_SERVE_ROOT, the folder of the clips, is not set"
    ):
        model.predict(table)
    monkeypatch.setenv("ERV_SERVE_ROOT", str(folder / "clips"))
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    assert len(model.predict(table)) == 1
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", object())
    with pytest.raises(DataError, match="this server runs without its guard"):
        model.predict(table)


def test_a_folder_that_is_none_is_an_error_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from erv.errors import RegistryError
    from erv.register.serving_clips import served_folder

    monkeypatch.setenv("ERV_SERVE_ROOT", str(folder / "gone"))
    with pytest.raises(RegistryError, match="not a folder; name the folder of the clips"):
        served_folder()
