"""What counts as the version of a server."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest

from erv.errors import StackError
from erv.stack.reach import server_version

LOGIN = "<!doctype html>\n<title>Sign in; please</title>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path with a body of its own."""

    bodies: ClassVar = {
        "/mlflow": ("text/html", b"3.16.1"),
        "/prefect": ("application/json", b'"3.9.0rc1"'),
        "/login": ("text/html", LOGIN.encode()),
        "/list": ("application/json", b"[1]"),
        "/bytes": ("application/octet-stream", b"\xff\xfe"),
        "/empty": ("text/plain", b""),
    }

    def do_GET(self) -> None:
        kind, body = self.bodies[self.path]
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_versions(url: str) -> None:
    assert server_version("MLflow", url, f"{url}/mlflow", {}) == "3.16.1"
    assert server_version("Prefect", url, f"{url}/prefect", {}) == "3.9.0rc1"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("login", "text/html that begins with '<!doctype html> <title>Sign in please</t'"),
        ("list", "application/json that begins with '[1]'"),
        ("bytes", "application/octet-stream that begins with"),
        ("empty", "expected its version, got nothing; "),
    ],
)
def test_any_other_answer_is_no_version(
    url: str, monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    monkeypatch.setenv("ERV_MLFLOW_URI", url)
    with pytest.raises(StackError) as caught:
        server_version("MLflow", url, f"{url}/{path}", {})
    text = str(caught.value)
    assert text.startswith(f"what answers at {url} is not MLflow: expected its version, got ")
    assert said in text
    assert text.endswith("; check ERV_MLFLOW_URI and the server, then run `erv connect`")
