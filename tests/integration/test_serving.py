"""`mlflow models serve` of a published model: what it reads, and what its answers give away."""

from __future__ import annotations

import base64
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

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.support.serving_image import serve_command
from tests.support.tiny_bundle import write_bundle, write_clip

pytestmark = pytest.mark.integration

START_SECONDS = 180.0
COLUMNS = ["clip", "answer", "explanation", "agreement", "completion", "error"]


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
        said = text
        for record in body.get("dataframe_records", []) if isinstance(body, dict) else []:
            said = said.replace(json.dumps(record.get("clip")), "")  # the client's own words
        for secret in ("Traceback", "stack_trace", ".py", *self._secrets):
            assert secret not in said
        return answer.status, json.loads(text)

    def rows(self, *records: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of a request that is answered."""
        status, answer = self.ask({"dataframe_records": list(records)})
        assert status == 200, answer
        rows: list[dict[str, Any]] = answer["predictions"]
        for row in rows:
            assert list(row) == COLUMNS
            assert (row["error"] is None) == isinstance(row["completion"], str)
        return rows

    def error(self, name: Any, **more: Any) -> str:
        """Why a clip can't be answered; the clip beside it is."""
        failed, good = self.rows({"clip": name, **more}, {"clip": "sub/good.mp4"})
        assert failed == {**dict.fromkeys(COLUMNS), "clip": failed["clip"], "error": failed["error"]}
        assert good["error"] is None
        assert "\n" not in failed["error"]
        return str(failed["error"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, the folder `clips` that it may read, and a clip outside."""
    import mlflow

    from erv.register.model_content import model_content

    folder = tmp_path_factory.mktemp("serving")
    bundle = folder / "candidate"
    bundle.mkdir()
    mlflow.pyfunc.save_model(folder / "model", **model_content(write_bundle(bundle), folder / "gathered"))
    # As a published version has it, once it was downloaded.
    (folder / "model/registered_model_meta").write_text("model_name: emotion-policy\nmodel_version: '2'\n")
    (folder / "model/lineage.json").write_text('{"model": "emotion-policy", "bundle": "1f0c"}')
    clips = folder / "clips"
    (clips / "sub").mkdir(parents=True)
    write_clip(folder / "secret.mp4")
    write_clip(clips / "sub/good.mp4")
    write_clip(clips / "silent.mp4", sound=False)
    write_clip(clips / "muted.mp4", loudness=0.0)
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
    # What the container runs, at another place.
    elsewhere = {"/srv/model": str(folder / "model"), "0.0.0.0": "127.0.0.1", "5001": str(port)}
    name, *arguments = serve_command()
    command = [sys.executable, "-m", name, *(elsewhere.get(word, word) for word in arguments)]
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
    (folder / "copies").mkdir()
    own = {
        "ERV_SERVE_ROOT": str(folder / "clips"),
        "ERV_SERVE_HOSTS": hosts,
        "TMPDIR": str(folder / "copies"),
    }
    with serving(folder, **own) as server:
        yield server


def test_a_clip_below_the_folder_is_answered(server: Server, folder: Path) -> None:
    uri = (folder / "clips/sub/good.mp4").as_uri()
    names = ("inside.mp4", "up/clips/sub/good.mp4", uri)
    rows = server.rows(*({"clip": name} for name in names))
    assert [row["clip"] for row in rows] == list(names)
    assert {row["completion"] for row in rows} == {rows[0]["completion"]}
    table = b"clip\nsub/good.mp4\nsub/good.mp4\n"
    assert len(server.ask(table, kind="text/csv")[1]["predictions"]) == 2


def test_the_log_names_the_version(server: Server) -> None:
    assert server.log.read_text().count("serving emotion-policy version 2 (bundle 1f0c)") == 1


def test_a_clip_may_come_with_the_request(server: Server, folder: Path) -> None:
    content = base64.b64encode((folder / "secret.mp4").read_bytes()).decode()
    named, sent, unnamed = server.rows(
        {"clip": "sub/good.mp4"}, {"clip": "of mine", "content": content}, {"content": content}
    )
    assert (sent["clip"], unnamed["clip"]) == ("of mine", None)
    assert named["completion"] == sent["completion"] == unnamed["completion"]
    assert not list((folder / "copies").glob("erv-clips-*")), "the copies are gone"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not base64!", "the content is not in base64"),
        (7, "the content is neither bytes nor a text in base64"),
        ("", "the file is empty"),
        (base64.b64encode(b"#EXTM3U\n/etc/passwd").decode(), "container can't be read"),
    ],
)
def test_content_that_is_no_clip_says_why(server: Server, content: Any, said: str) -> None:
    assert said in server.error(None, content=content)


def test_content_is_taken_as_bytes_in_python(folder: Path) -> None:
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(folder / "model"))
    content = (folder / "secret.mp4").read_bytes()
    table = model.predict(pd.DataFrame({"content": [content, b"nothing", None]}))
    assert table["error"].isna().tolist() == [True, False, False]
    assert isinstance(table["completion"][0], str)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Any:
    """The model as another team has it: in Python, with its signature."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ERV_SERVE_ROOT", str(folder / "clips"))
        patch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code there
        return mlflow.pyfunc.load_model(str(folder / "model"))


NEITHER = "neither name nor content"


def test_what_is_missing_in_a_table_costs_its_row_only(loaded: Any) -> None:
    """MLflow refused a table with a column that pandas takes for numbers: one in which nothing is there."""
    good = "sub/good.mp4"
    for table, said in (
        (pd.DataFrame({"clip": [good, np.nan], "content": [np.nan, np.nan]}), [None, NEITHER]),
        (pd.DataFrame({"clip": [good, pd.NaT, pd.NA, None]}), [None, *[NEITHER] * 3]),
        (pd.DataFrame({"clip": pd.Categorical([good, None])}), [None, NEITHER]),
        (pd.DataFrame({"clip": pd.array([good, pd.NA], dtype="string")}), [None, NEITHER]),
        (pd.DataFrame({"clip": pd.Series([good, None], dtype=pd.ArrowDtype(pa.string()))}), [None, NEITHER]),
        (pd.DataFrame({"clip": [np.nan, np.nan]}), [NEITHER, NEITHER]),
        (pd.DataFrame({"clip": [1, 2]}), [NEITHER, NEITHER]),
        (pd.DataFrame({"clip": [good], "label": ["anger"]}, index=[7]), [None]),
        (pd.DataFrame({"clip": []}), []),
    ):
        found = loaded.predict(table)
        assert list(found.columns) == COLUMNS
        for error, expected in zip(found["error"], said, strict=True):
            assert (error is None) if expected is None else error.startswith(expected)


def test_answers_have_the_index_of_the_table(loaded: Any) -> None:
    """Part of a table got the index 0, 1, ..., so that pandas put its answers into the wrong rows."""
    table = pd.DataFrame({"clip": ["gone.mp4", "gone.mp4", "sub/good.mp4", "a.mp4"], "use": [0, 0, 1, 1]})
    table["error"] = loaded.predict(table[table.use == 1])["error"]
    assert table["error"].isna().tolist() == [True, True, True, False]
    assert loaded.predict(table[3:2]).index.empty


def test_contents_of_all_kinds_cost_their_row_only(loaded: Any, folder: Path) -> None:
    """An array of numbers ended the whole table."""
    content = (folder / "secret.mp4").read_bytes()
    text = base64.encodebytes(content).decode()
    asked = [
        content, text, f"data:video/mp4;base64,{text}", np.bytes_(content),
        np.frombuffer(content, dtype=np.uint8), [1, 2], b"no video", content[:500], pd.NA,
    ]  # fmt: skip
    found = loaded.predict(pd.DataFrame({"clip": range(len(asked)), "content": asked}))
    assert found["clip"].tolist() == [str(number) for number in range(len(asked))]
    assert [error is None for error in found["error"]] == [True] * 4 + [False] * 5
    assert len(set(found["completion"][:4])) == 1
    assert found["error"][4] == "the content is neither bytes nor a text in base64"
    assert found["error"][8].startswith(NEITHER)


def test_a_table_of_any_length_is_answered_in_python(loaded: Any) -> None:
    """More than 64 rows were refused there, too, where nobody but the caller needs the memory."""
    names = ["gone.mp4"] * 999 + [None]
    names[70] = names[900] = "sub/good.mp4"
    found = loaded.predict(pd.DataFrame({"clip": names}))
    assert [number for number, error in enumerate(found["error"]) if error is None] == [70, 900]
    assert found["clip"].tolist() == names
    assert found["error"][999].startswith(NEITHER)


def test_a_table_without_its_columns_is_refused(loaded: Any) -> None:
    from erv.errors import DataError

    for table in (pd.DataFrame({"video": ["a.mp4"]}), pd.DataFrame()):
        with pytest.raises(DataError, match=NO_TABLE):
            loaded.predict(table)


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
    assert server.error(name) == "no such file below the served folder"


def test_absolute_paths_are_refused(server: Server, folder: Path) -> None:
    for path in ("/etc/passwd", "//etc/passwd", "/gone"):
        expected = "name it by its path below the served folder, not by an absolute one"
        assert server.error(path) == expected


def test_uris_lead_nowhere_else(server: Server, folder: Path) -> None:
    for uri in (
        "file:///etc/passwd",
        "file:relative.mp4",
        (folder / "secret.mp4").as_uri(),
        (folder / "clips/outside.mp4").as_uri(),
        f"file://elsewhere{folder}/clips/sub/good.mp4",
        f"{(folder / 'clips').as_uri()}/%2e%2e/secret.mp4",
    ):
        assert server.error(uri) == "no such file below the served folder"
    assert server.error("s3://bucket/clip.mp4") == "no such object below the served prefix"
    assert server.error("http://127.0.0.1/clip.mp4").startswith(
        "clips are not read from http://; send the file"
    )


def test_broken_and_silent_clips_say_why(server: Server) -> None:
    assert server.error("empty.mp4") == "the file is empty"
    assert server.error("broken.mp4").startswith("container can't be read")
    assert "no sound track" in server.error("silent.mp4")


def test_what_validate_would_not_accept_is_not_answered(server: Server) -> None:
    """A silenced clip was answered, and its explanation agreed with the answer."""
    said = "expected sound of at least -60 dB of full scale (RMS), found -120 (not_silent)"
    assert server.error("muted.mp4") == said


def test_all_clips_of_a_request_may_fail(server: Server) -> None:
    rows = server.rows({"clip": "gone.mp4"}, {"clip": "muted.mp4"})
    assert all(row["error"] for row in rows)


NO_TABLE = "the request is not a table with the columns clip or content, of texts; send for example"


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"{", "application/json", 400, NO_TABLE),
        (b"[1]", "application/json", 400, NO_TABLE),
        ({"dataframe_records": [{"video": "a.mp4"}]}, "application/json", 400, NO_TABLE),
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


def test_numbers_alone_or_no_rows_are_answered(server: Server) -> None:
    """A column that pandas takes for numbers was refused as a whole."""
    for value in (7, 7.5, None, True, ["a.mp4"], {"a": 1}):
        (row,) = server.rows({"clip": value})
        assert row["error"].startswith("neither name nor content")
    table = b"clip,content\nsub/good.mp4,\n7,\n,\n"
    for kind in ("text/csv", "text/csv; charset=utf-8"):
        good, *others = server.ask(table, kind=kind)[1]["predictions"]
        assert good["error"] is None
        assert [row["error"][:9] for row in others] == ["no such f", "neither n"]
    assert server.ask(table, kind="text/csv; charset=latin-1")[0] == 415
    assert server.ask({"dataframe_split": {"columns": ["clip"], "data": []}}) == (200, {"predictions": []})


@pytest.mark.parametrize("name", [7, None, ""])
def test_a_row_without_a_name_says_so(server: Server, name: Any) -> None:
    assert server.error(name).startswith("neither name nor content; the field clip holds paths")


def test_a_request_that_is_too_large_is_refused(server: Server) -> None:
    said = {
        "error_code": "REQUEST_ENTITY_TOO_LARGE",
        "message": "the request is larger than this server takes; send fewer clips, or allow more in"
        " ERV_SERVE_MAX_MB",
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
        assert "no such file" in server.ask(body, host=host)[1]["predictions"][0]["error"]


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
    expected = "this server reads no clips: ERV_SERVE_ROOT, the folder of the clips, is not set"
    assert model.predict(table)["error"].tolist() == [expected]
    monkeypatch.setenv("ERV_SERVE_ROOT", str(folder / "clips"))
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    assert model.predict(table)["error"].isna().all()
    monkeypatch.setitem(sys.modules, "mlflow.pyfunc.scoring_server.app", object())
    with pytest.raises(DataError, match="this server runs without its guard"):
        model.predict(table)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("{folder}/gone", "not a folder; name the folder of the clips, s3://bucket/prefix, or both"),
        ("{folder},{folder}", "more than one folder or more than one prefix"),
        ("s3://one/a,s3://two/b", "more than one folder or more than one prefix"),
    ],
)
def test_a_root_that_is_none_is_an_error_at_once(folder: Path, root: str, said: str) -> None:
    from erv.answering.clips import served_clips
    from erv.errors import RegistryError

    with pytest.raises(RegistryError, match=said):
        served_clips({"ERV_SERVE_ROOT": root.format(folder=folder)})


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_size_that_is_none_is_an_error_at_once(value: str) -> None:
    from erv.errors import RegistryError
    from erv.register.serving_guard import most_bytes

    assert most_bytes({"ERV_SERVE_MAX_MB": "3"}) == 3 << 20
    with pytest.raises(RegistryError, match=r"ERV_SERVE_MAX_MB is '.*', not a whole number above 0"):
        most_bytes({"ERV_SERVE_MAX_MB": value})
