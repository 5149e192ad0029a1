"""Requests to Prefect: one that the server was too busy for is repeated, one that it refuses is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from prefect.settings.models.api import APISettings

from erv.environment import Environment
from erv.errors import StackError
from erv.stack import prefect_api


@contextmanager
def answering(*statuses: int) -> Iterator[tuple[Environment, list[int]]]:
    """An address that answers with these in turn, and what is left of them."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(left.pop(0))
            self.end_headers()
            self.wfile.write(b"[1]")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Environment(Path(), prefect_api_url=f"http://127.0.0.1:{server.server_port}"), left
        finally:
            server.shutdown()


@pytest.mark.parametrize("busy", [429, 502, 503])
def test_a_busy_server_is_asked_again(busy: int) -> None:
    """A stage that ran elsewhere failed when Prefect on SQLite was busy for a moment."""
    with answering(busy, busy, 200) as (environment, left):
        assert prefect_api.ask(environment, "/runs") == [1]
        assert left == []


@pytest.mark.parametrize("refusal", [409, 500])
def test_a_refusal_is_not_repeated(refusal: int) -> None:
    with answering(refusal, 200) as (environment, left):
        with pytest.raises(StackError, match=f"answers {refusal} to /runs"):
            prefect_api.ask(environment, "/runs")
        assert left == [200]


def test_a_server_that_stays_busy_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "_TIMES", 2)
    with answering(503, 503, 200) as (environment, left):
        with pytest.raises(StackError, match="answers 503 to /runs"):
            prefect_api.ask(environment, "/runs")
        assert left == [200]


def test_a_slow_server_gets_as_long_as_from_prefect_s_own_client() -> None:
    """A stage in a pool failed when Prefect on SQLite took more than ten seconds for an answer."""
    assert APISettings.model_fields["request_timeout"].default <= prefect_api._TIMEOUT_SECONDS
