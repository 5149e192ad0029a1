"""The gate in front of our web servers: names, pages and the key."""

from __future__ import annotations

import base64

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from erv.web.gate import guarded

KEY = "secret"
ADDRESS = "http://127.0.0.1:5000"
BEARER = {"Authorization": f"Bearer {KEY}"}


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("data")


async def who(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.user.display_name)


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("data")
    await websocket.close()


APP = Starlette(
    routes=[
        Route("/data", answer, methods=["GET", "POST"]),
        Route("/health", answer),
        Route("/who", who),
        WebSocketRoute("/socket", echo),
    ]
)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(guarded(APP, ["127.0.0.1"], KEY), base_url=ADDRESS)


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (BEARER, 200),
        ({"Authorization": "bearer secret"}, 200),
        (basic("erv:secret"), 200),
        (basic("anybody:secret"), 200),
        ({}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Bearer secret2"}, 401),
        ({"Authorization": "Bearer é".encode()}, 401),
        (basic("secret"), 401),
        (basic("erv:"), 401),
        ({"Authorization": "Basic ?"}, 401),
        ({"Authorization": b"Basic \xe9"}, 401),
        ({"Authorization": "Digest secret"}, 401),
    ],
    ids=repr,
)
def test_key(client: TestClient, headers: dict[str, str], status: int) -> None:
    assert client.get("/data", headers=headers).status_code == status


@pytest.mark.parametrize("key", ["", (), ("secret", "")])
def test_an_empty_key_lets_nobody_in(key: str | tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="empty"):
        guarded(APP, ["127.0.0.1"], key)


def test_one_of_several_keys() -> None:
    client = TestClient(guarded(APP, ["127.0.0.1"], ["first", "second"]), base_url=ADDRESS)
    for key, said in [("first", "key 1"), ("second", "key 2"), ("firstsecond", "a key"), ("third", "a key")]:
        answer = client.get("/who", headers={"Authorization": f"Bearer {key}"})
        assert answer.text.startswith(said)


def test_health_needs_no_key_and_nothing_below_it_is_open(client: TestClient) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/health/../data").status_code == 401
    assert client.post("/health").status_code in (401, 405)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "[::1]"])
def test_other_names_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/data", headers={**BEARER, "Host": host}).status_code == 400


@pytest.mark.parametrize(
    ("page", "status"),
    [
        ({"Origin": ADDRESS}, 200),
        ({"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        # A link to us, on any page.
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://[evil"}, 403),
        # An image, a script, a frame: browsers send the key with them, and no Origin.
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
    ],
    ids=repr,
)
def test_pages(client: TestClient, page: dict[str, str], status: int) -> None:
    assert client.get("/data", headers={**BEARER, **page}).status_code == status


def test_a_form_of_another_page_is_refused(client: TestClient) -> None:
    page = {"Origin": "http://evil.example", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.post("/data", headers={**BEARER, **page}).status_code == 403


def test_websockets(client: TestClient) -> None:
    address = ADDRESS.replace("http:", "ws:") + "/socket"
    with client.websocket_connect(address, headers=BEARER) as websocket:
        assert websocket.receive_text() == "data"
    for headers in ({**BEARER, "Origin": "http://evil.example"}, {}):
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(address, headers=headers):
            pass


def test_who_has_no_key_is_told_where_it_is() -> None:
    app = guarded(APP, ["127.0.0.1"], KEY, realm="a place", remedy="see the door", open_paths=["/data"])
    client = TestClient(app, base_url=ADDRESS)
    assert client.get("/data").status_code == 200
    answer = client.get("/health")
    assert answer.text == "a key is needed: see the door"
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="a place", charset="UTF-8"'


def test_a_refused_name_never_reaches_the_server() -> None:
    answer = TestClient(guarded(APP, ["127.0.0.1"]), base_url=ADDRESS).get("/data", headers={"Host": "evil"})
    assert (answer.status_code, answer.text) == (400, "the Host header is not a name of this server")
