"""An answer that isn't MLflow's is refused in one sentence, whatever it holds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from erv.environment import Environment
from erv.tracking.rest import Refused, Rest


@contextmanager
def answering(text: str) -> Iterator[str]:
    """The address of a server that gives this answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "7", "<html>", '{"experiment": {}}', '{"experiment": {"id": 1}}']
)
def test_an_answer_that_is_not_mlflows_is_refused(text: str, tmp_path: Path) -> None:
    with answering(text) as address, pytest.raises(Refused, match="INTERNAL_ERROR"):
        Rest(Environment(workspace=tmp_path, mlflow_uri=address)).experiment_id("erv")
