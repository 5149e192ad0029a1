"""Headers, errors, limits and pages of our own servers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import jinja2
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from erv.web.errors import FAILED, Refused
from erv.web.headers import SafeHeaders
from erv.web.pages import STATIC, Pages, Static
from erv.web.site import site

ADDRESS = "http://127.0.0.1:8000"
BROWSER = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate"}
SECRET = "/home/somebody/secret"


class Body(BaseModel):
    number: int


def application() -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.mount(STATIC, Static())

    @app.get("/kept")
    def kept() -> Response:
        return PlainTextResponse("kept", headers={"Cache-Control": "max-age=60"})

    @app.get("/refused")
    def refused() -> None:
        raise Refused(429, "too many <b>", param="x", code="queue_full", headers={"Retry-After": "3"})

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError(SECRET)

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.post("/model")
    def model(body: Body) -> int:
        return body.number

    return app


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = site(application(), hosts=["127.0.0.1"], most_bytes=1000, key="secret")
    headers = {"Authorization": "Bearer secret"}
    return TestClient(app, base_url=ADDRESS, headers=headers, raise_server_exceptions=False)


@pytest.mark.parametrize(
    "path", ["/kept", "/refused", "/fails", "/nothing", "/static/style.css", "/static/none"]
)
def test_every_answer_has_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "camera=()" in headers["Permissions-Policy"]


def test_refusals_of_the_gate_have_the_headers_too(client: TestClient) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Authorization": "no"}):
        answer = client.get("/kept", headers=headers)
        assert answer.status_code in (400, 401, 403)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["error"]["message"]


def test_what_may_be_kept(client: TestClient) -> None:
    assert client.get("/kept").headers["Cache-Control"] == "max-age=60"
    assert client.get("/refused").headers["Cache-Control"] == "no-store"
    style = client.get("/static/style.css")
    assert style.headers["Cache-Control"] == "no-cache"
    again = client.get("/static/style.css", headers={"If-None-Match": style.headers["ETag"]})
    assert again.status_code == 304


def test_features_of_pages() -> None:
    answer = TestClient(SafeHeaders(application(), ["camera"])).get("/kept")
    assert "camera=(self)" in answer.headers["Permissions-Policy"]
    assert "microphone=()" in answer.headers["Permissions-Policy"]
    with pytest.raises(ValueError, match="kamera"):
        SafeHeaders(application(), ["kamera"])


def test_an_error_is_a_sentence_for_programs(client: TestClient) -> None:
    answer = client.get("/refused")
    assert answer.headers["Retry-After"] == "3"
    assert answer.json() == {
        "error": {
            "message": "too many <b>",
            "type": "rate_limit_error",
            "param": "x",
            "code": "queue_full",
        }
    }
    assert client.get("/nothing").json()["error"]["message"] == "there is nothing here"
    assert client.put("/kept").headers["Allow"] == "GET"


def test_an_error_is_a_page_for_people(client: TestClient) -> None:
    answer = client.get("/refused", headers=BROWSER)
    assert answer.status_code == 429
    assert "Too many &lt;b&gt;." in answer.text
    assert client.get("/refused", headers={**BROWSER, "Sec-Fetch-Mode": "cors"}).json()


@pytest.mark.parametrize("headers", [BROWSER, {}], ids=["people", "programs"])
def test_a_failure_says_nothing_of_the_inside(
    client: TestClient, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = client.get("/fails", headers=headers)
    assert answer.status_code == 500
    assert FAILED[1:] in answer.text
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text
    assert SECRET in caplog.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"number": "x"}', "number: Input should be a valid integer"),
        (b"{}", "number: Field required"),
        (b"{", "the body is not JSON"),
    ],
)
def test_a_wrong_body_is_a_sentence(client: TestClient, body: bytes, said: str) -> None:
    answer = client.post("/model", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_size_that_is_announced(client: TestClient) -> None:
    assert client.post("/body", content=b"x" * 1000).json() == 1000
    answer = client.post("/body", content=b"x" * 1001)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == (
        "the request is larger than 1000 bytes, the most that is taken here"
    )


def test_size_that_is_not_announced_is_counted_before_all_is_read() -> None:
    asyncio.run(_endless())


async def _endless() -> None:
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 100
            yield b"x" * 100

    # Read by hand: the test client would join the pieces.
    app = site(application(), hosts=["127.0.0.1"], most_bytes=1000)
    source, sent = pieces(), []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": await anext(source), "more_body": True}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/body", "raw_path": b"/body", "query_string": b"",
        "root_path": "", "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1), "headers": [(b"host", b"127.0.0.1:8000")],
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 413
    assert read <= 1200


def test_limits_and_names_are_required() -> None:
    with pytest.raises(ValueError, match="names"):
        site(application(), hosts=[], most_bytes=1)
    with pytest.raises(ValueError, match="above 0"):
        site(application(), hosts=["127.0.0.1"], most_bytes=0)


@pytest.mark.parametrize(
    "path", ["/static/../pages.py", "/static/%2e%2e/pages.py", "/static/..%2fpages.py", "/static/"]
)
def test_no_file_beside_the_static_ones(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_templates_escape_and_miss_nothing() -> None:
    pages = Pages()
    text = pages.text("web/error.html.j2", number=404, title="<i>", sentence="<script>alert(1)</script>")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    with pytest.raises(jinja2.UndefinedError, match="sentence"):
        pages.text("web/error.html.j2", number=404, title="x")
