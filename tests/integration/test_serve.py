"""`erv serve` with a real model in its process, over HTTP: what it answers, refuses, and survives."""

from __future__ import annotations

import asyncio
import base64
import html
import http.client
import io
import json
import os
import re
import signal
import socket
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import openai
import pytest
import starlette.requests
from prometheus_client.parser import text_string_to_metric_families

from erv.answering.events import Done
from erv.answering.process import Answerer, QueueFull
from erv.answering.requests import Request
from erv.serve import chat_request
from erv.serve.app import application, gated
from erv.serve.engine import Engine, Serving
from erv.serve.metrics import Metrics
from erv.serve.rates import Buckets
from erv.serve.service import Service
from erv.serve.versions import FolderSource, Source, Version
from erv.web.run import hosts_of
from tests.support.browser import chromium, visit
from tests.support.talking_bundle import COMPLETIONS, SAID, write_talking_bundle
from tests.support.tiny_bundle import write_clip
from tests.support.websites import program, website

pytestmark = [pytest.mark.integration, pytest.mark.slow]

KEY = "key-of-the-tests-0001"  # not-a-secret
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Served:
    """A running server, and what is behind it."""

    address: str
    engine: Engine
    folder: Path

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(
            base_url=self.address, headers={**AUTHORIZED, **headers}, trust_env=False, timeout=120
        )

    def metrics(self) -> dict[str, float]:
        """The value of each metric, of those with labels the sum."""
        found: dict[str, float] = {}
        with self.client() as client:
            for family in text_string_to_metric_families(client.get("/metrics").text):
                for sample in family.samples:
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    def kill_model(self) -> None:
        os.kill(self.engine._serving.answerer._process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle `talking`, the folder `clips` that may be read, and a clip outside."""
    folder = tmp_path_factory.mktemp("serve")
    clips = folder / "clips"
    clips.mkdir()
    known = {emotion: write_clip(clips / f"{emotion}.mp4", seed=seed) for seed, emotion in enumerate(SAID)}
    write_talking_bundle(folder / "talking", known)
    write_clip(clips / "silent.mp4", sound=False)
    write_clip(folder / "outside.mp4")
    (clips / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(200))
    return folder


@contextmanager
def serving(folder: Path, source: Source | None = None, **options: Any) -> Iterator[Served]:
    batch, queue = options.get("batch", 8), options.get("queue", 32)

    def start(version: Version) -> Answerer:
        return Answerer(
            version.bundle, root=str(folder / "clips"), device="cpu", batch=batch, queue=queue, decoders=2
        )

    source = source or FolderSource(folder / "talking")
    engine = Engine(source, start, queue=queue, every=options.get("every", 0.0))
    try:
        app = application(
            engine,
            batch=batch,
            seconds=options.get("seconds", 600.0),
            buckets=options.get("buckets", Buckets(1e6, 1000)),
        )
        guarded = gated(app, hosts=hosts_of("127.0.0.1"), most_bytes=1 << 20, keys=[KEY])
        with website(guarded) as address:
            yield Served(address, engine, folder)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serving(folder) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


@pytest.fixture(scope="module")
def sdk(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key=KEY, max_retries=0)


def content_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def asked(path: Path, *more: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages about a clip that is sent."""
    url = f"data:video/mp4;base64,{content_of(path)}"
    return [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": url}}, *more]}]


def events_of(text: str) -> list[dict[str, Any]]:
    """The events of a stream, whose names are those in their data."""
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['kind']}"
        found.append(event)
    return found


def wav_of(path: Path) -> bytes:
    """The sound of a clip as it is heard."""
    from erv.media.decode import DecodeRule, decode

    heard = decode(path, DecodeRule(frames=2, size=32, geometry="stretch", sample_rate=16000)).audio
    assert heard is not None
    return wav(heard)


def tone(pitch: float, loudness: float) -> bytes:
    """A second of a tone, in Hz."""
    return wav((loudness * np.sin(2 * np.pi * pitch * np.arange(16000) / 16000)).astype(np.int16))


def wav(heard: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(heard.tobytes())
    return stream.getvalue()


def audio_part(content: bytes) -> dict[str, Any]:
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(content).decode(), "format": "wav"},
    }


# --- OpenAI's client


def test_openai_s_client_in_one_piece(sdk: openai.OpenAI, folder: Path) -> None:
    for emotion in SAID:
        answer = sdk.chat.completions.create(model="talking", messages=asked(folder / f"clips/{emotion}.mp4"))
        (choice,) = answer.choices
        assert choice.message.content == COMPLETIONS[emotion]
        assert choice.finish_reason == "stop"
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        verdict = answer.model_extra["erv"]
        assert verdict["answer"] == emotion
        assert [one["text"] for one in verdict["sentences"]] == [text for text, _ in SAID[emotion]]
        assert max(verdict["scores"], key=verdict["scores"].get) == emotion


def test_openai_s_client_as_it_is_written(sdk: openai.OpenAI, folder: Path) -> None:
    stream = sdk.chat.completions.create(
        model="talking",
        messages=asked(folder / "clips/anger.mp4"),
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces = list(stream)
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == COMPLETIONS["anger"]
    assert len(pieces) > 20
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-2:] == [None, "stop"]
    assert pieces[-2].model_extra["erv"]["agreement"] == 0.75
    assert not pieces[-1].choices
    assert pieces[-1].usage.completion_tokens > 20
    assert len({piece.id for piece in pieces}) == 1


def test_openai_s_client_names_a_clip_below_the_root(sdk: openai.OpenAI) -> None:
    content = [{"type": "video_url", "video_url": {"url": "anger.mp4"}}]
    answer = sdk.chat.completions.create(
        model="talking", messages=[{"role": "user", "content": content}], max_tokens=5
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    assert COMPLETIONS["anger"].startswith(answer.choices[0].message.content)


def test_openai_s_client_gets_its_own_errors(sdk: openai.OpenAI, folder: Path) -> None:
    messages = asked(folder / "clips/anger.mp4")
    with pytest.raises(openai.NotFoundError, match="there is talking"):
        sdk.chat.completions.create(model="other", messages=messages)
    with pytest.raises(openai.BadRequestError, match="no sound track"):
        sdk.chat.completions.create(model="talking", messages=asked(folder / "clips/silent.mp4"))
    with pytest.raises(openai.BadRequestError, match="no sound track"):
        sdk.chat.completions.create(model="talking", messages=asked(folder / "clips/silent.mp4"), stream=True)
    with pytest.raises(openai.BadRequestError, match="no such field") as refused:
        sdk.chat.completions.create(model="talking", messages=messages, extra_body={"tempo": 1})
    assert refused.value.param == "tempo"
    other = openai.OpenAI(base_url=sdk.base_url, api_key="x" * 20, max_retries=0)
    with pytest.raises(openai.AuthenticationError, match="a key is needed"):
        other.models.list()


def test_a_named_version_is_not_answered_by_another(
    served: Served, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes its place between the look at the name and the handing over."""
    engine = served.engine
    before = engine._serving
    real = Engine._submit

    def at(number: str) -> None:
        engine._serving = Serving(replace(before.version, number=number), before.answerer)

    def late(engine: Engine, request: Request) -> Any:
        at("4")
        return real(engine, request)

    monkeypatch.setattr(Engine, "_submit", late)
    content = [{"type": "video_url", "video_url": {"url": "anger.mp4"}}]
    messages = [{"role": "user", "content": content}]
    try:
        for stream in (False, True):
            at("3")
            with pytest.raises(openai.NotFoundError, match="there is talking and talking/4"):
                sdk.chat.completions.create(model="talking/3", messages=messages, stream=stream)
        at("3")
        assert sdk.chat.completions.create(model="talking", messages=messages).model == "talking/4"
    finally:
        engine._serving = before
    wait_for(lambda: engine.waiting + engine.answering == 0)


def test_others_are_answered_while_a_clip_is_decoded_from_base64(
    served: Served, sdk: openai.OpenAI, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """45 MiB took the loop that answers all clients two seconds."""
    begun, answered = threading.Event(), threading.Event()
    real = chat_request.file_in

    def slow(text: str, param: str) -> bytes:
        begun.set()
        assert answered.wait(20)
        return real(text, param)

    monkeypatch.setattr(chat_request, "file_in", slow)
    found: list[Any] = []
    messages = asked(folder / "clips/anger.mp4")
    asking = threading.Thread(
        target=lambda: found.append(sdk.chat.completions.create(model="talking", messages=messages))
    )
    asking.start()
    assert begun.wait(60)
    with served.client() as client:
        assert client.get("/health", timeout=15).json() == {"status": "ok"}
    answered.set()
    asking.join()
    assert found[0].choices[0].message.content == COMPLETIONS["anger"]


def test_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["talking"]


def test_sound_of_a_part_is_heard_instead_of_the_clip_s_own(sdk: openai.OpenAI, folder: Path) -> None:
    def ask(clip: str, *parts: dict[str, Any]) -> tuple[str, dict[str, float]]:
        answer = sdk.chat.completions.create(model="talking", messages=asked(folder / clip, *parts))
        return str(answer.choices[0].message.content), answer.model_extra["erv"]["scores"]

    own = audio_part(wav_of(folder / "clips/anger.mp4"))
    assert ask("clips/anger.mp4", own) == ask("clips/anger.mp4")
    # The checks of clips hear the sound that was sent, and not the clip's own.
    with pytest.raises(openai.BadRequestError, match="not_silent"):
        ask("clips/anger.mp4", audio_part(wav(np.zeros(16000, np.int16))))
    with pytest.raises(openai.BadRequestError, match="no sound track"):
        ask("clips/silent.mp4")
    assert ask("clips/silent.mp4", own)[0]


def test_what_is_heard_can_be_shown(client: httpx.Client, folder: Path) -> None:
    def heard(**more: bytes) -> list[float]:
        files = {"content": (folder / "clips/anger.mp4").read_bytes(), **more}
        answer = client.post(
            "/explain", files=files, data={"show": "true"}, headers={"Accept": "text/event-stream"}
        )
        (seen,) = [event for event in events_of(answer.text) if event["kind"] == "seen"]
        assert len(seen["frames"]) == 2
        return list(seen["waveform"])

    own = heard()
    assert heard(audio=wav_of(folder / "clips/anger.mp4")) == own
    loud, low = heard(audio=tone(200, 9000)), heard(audio=tone(200, 3000))
    assert max(low) < 0.5 * max(loud)
    assert loud != own


# --- /explain


@pytest.mark.parametrize("how", ["json", "form", "name", "data"])
def test_an_explanation_in_one_piece(client: httpx.Client, folder: Path, how: str) -> None:
    clip = folder / "clips/anger.mp4"
    sent: dict[str, dict[str, Any]] = {
        "json": {"json": {"content": content_of(clip)}},
        "form": {"files": {"content": clip.read_bytes()}, "data": {"dataset": "mafw"}},
        "name": {"json": {"clip": "anger.mp4"}},
        "data": {"json": {"content": f"data:video/mp4;base64,{content_of(clip)}"}},
    }
    answer = client.post("/explain", **sent[how])
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["completion"] == COMPLETIONS["anger"]
    assert said["answer"] == "anger"
    assert said["agreement"] == 0.75
    assert [one["agrees"] for one in said["sentences"]] == [True, True, False, True]
    assert sum(said["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert said["model"]["id"] == "talking"
    assert len(said["model"]["bundle"]) == 64
    assert said["seconds"]["first_token"] <= said["seconds"]["total"]
    assert said["tokens_per_second"] > 0


def test_an_explanation_as_it_is_written(client: httpx.Client) -> None:
    answer = client.post("/explain", json={"clip": "anger.mp4"}, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    kinds = [event["kind"] for event in events]
    assert kinds[:3] == ["model", "queued", "started"]
    assert kinds[-2:] == ["answer", "done"]
    assert "".join(event["text"] for event in events if event["kind"] == "token") == COMPLETIONS["anger"]
    assert kinds.index("sentence") < len(kinds) - 1 - kinds[::-1].index("token"), "before the text ends"
    whole = client.post("/explain", json={"clip": "anger.mp4"}).json()
    done = events[-1]
    for name in ("answer", "explanation", "completion", "agreement", "sentences", "ended", "usage"):
        assert done[name] == whole[name]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"clip": "../outside.mp4"}, "no such file below the served folder"),
        ({"clip": "/etc/passwd"}, "not by an absolute one"),
        ({"clip": "http://127.0.0.1/x.mp4"}, "clips are not read from http://"),
        ({"clip": "broken.mp4"}, ""),
        ({"clip": "silent.mp4"}, "no sound track"),
        ({"content": base64.b64encode(b"#EXTM3U\n/etc/passwd").decode()}, "container can't be read"),
        ({"content": "not base64!"}, "content: not in base64"),
        ({"clip": "anger.mp4", "max_new_tokens": 5000}, "expected 1 to 96"),
        ({"clip": "anger.mp4", "prompt": "<video> what?"}, "placeholder"),
        ({"clip": "anger.mp4", "prompt": "x" * 5000}, "longer than"),
        ({"clip": "anger.mp4", "audio": base64.b64encode(b"no sound").decode()}, ""),
        ({"clip": "anger.mp4", "dataset": "xyz"}, "tested with mafw, not with 'xyz'"),
        ({"clip": "anger.mp4", "colour": "red"}, "colour: there is no such field here"),
        ({}, "one of the two"),
    ],
    ids=str,
)
def test_what_is_refused_says_why(
    served: Served, client: httpx.Client, body: dict[str, Any], said: str
) -> None:
    answer = client.post("/explain", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert said in error["message"]
    assert error["message"]
    for secret in (str(served.folder), "Traceback", ".py", "/tmp"):
        assert secret not in answer.text
    assert client.post("/explain", json={"clip": "anger.mp4"}).status_code == 200


def test_bodies_that_are_no_question(client: httpx.Client) -> None:
    in_json = {"Content-Type": "application/json"}
    for content in (b"{", b"[" * 100_000, b"\xff", b""):
        assert client.post("/explain", content=content, headers=in_json).status_code == 400
    for more in ({}, {"content": b"x"}, {"data": {"clip": "anger.mp4"}}):
        neither = client.post("/explain", **more)
        assert neither.status_code == 415
        assert "or a form (multipart/form-data)" in neither.json()["error"]["message"]
    other = client.post("/v1/chat/completions").json()["error"]["message"]
    assert other == "send JSON, with the Content-Type application/json"
    forms: list[dict[str, Any]] = [
        {"files": [("content", b"a"), ("content", b"b")]},
        {"files": {"content": b""}},
        {"files": {"clip": b"a"}},
        {"files": {"other": b"a"}},
        {"data": {"content": "text"}, "files": {"audio": b"x"}},
    ]
    for form in forms:
        assert client.post("/explain", **form).status_code == 400
    too_large = client.post("/explain", files={"content": bytes(2 << 20)})
    assert too_large.status_code == 413
    message = too_large.json()["error"]["message"]
    assert message == "the request is larger than 1 MiB, the most that is taken here"


CUT = "what? \ud83d"  # half of an emoji, which JSON can name and UTF-8 can't


@pytest.mark.parametrize("where", ["prompt", "text", "dataset", "clip", "model", "a name", "subtitle"])
def test_half_a_character_costs_nobody_the_model(served: Served, client: httpx.Client, where: str) -> None:
    """It ended the process, so that all others got 503."""
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        name: ("/explain", {"clip": "anger.mp4", key: CUT})
        for name, key in (
            ("prompt", "prompt"), ("dataset", "dataset"), ("clip", "clip"), ("subtitle", "subtitle"),
            ("a name", CUT),
        )
    }  # fmt: skip
    for name, text, model in (("text", CUT, "talking"), ("model", "What?", CUT)):
        parts = [{"type": "video_url", "video_url": {"url": "anger.mp4"}}, {"type": "text", "text": text}]
        body = {"model": model, "messages": [{"role": "user", "content": parts}]}
        bodies[name] = ("/v1/chat/completions", body)
    path, body = bodies[where]
    before = served.engine._serving.answerer._process.pid
    in_json = {"Content-Type": "application/json"}
    answer = client.post(path, content=json.dumps(body), headers=in_json)
    assert answer.status_code == 400
    assert "half a character" in answer.json()["error"]["message"]
    assert client.post("/explain", json={"clip": "anger.mp4"}).status_code == 200
    assert served.engine._serving.answerer._process.pid == before


def test_nothing_is_left_on_disk(served: Served, client: httpx.Client, folder: Path) -> None:
    client.post("/explain", files={"content": (folder / "clips/anger.mp4").read_bytes()})
    client.post("/explain", files={"content": b"broken"})
    answering = served.engine._serving.answerer._scratch.path
    assert answering.is_dir()
    assert not list(answering.glob("erv-clips-*"))


# --- who may ask


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong-key-00000000"}, 401),
        ({**AUTHORIZED, "Origin": "http://evil.example"}, 403),
        ({**AUTHORIZED, "Host": "evil.example"}, 400),
    ],
    ids=str,
)
def test_who_is_not_answered(served: Served, headers: dict[str, str], status: int) -> None:
    with httpx.Client(base_url=served.address, trust_env=False) as client:
        for request in (
            "POST /explain", "POST /v1/chat/completions", "GET /v1/models", "GET /metrics", "GET /docs",
            "GET /openapi.json", "GET /",
        ):  # fmt: skip
            method, path = request.split()
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == status, path
            assert "talking" not in answer.text


def test_states_need_no_key(served: Served) -> None:
    with httpx.Client(base_url=served.address, trust_env=False) as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"ready": True}


def test_a_client_that_asks_too_often(folder: Path) -> None:
    with serving(folder, buckets=Buckets(60, 2)) as served, served.client() as client:
        said = [client.post("/explain", json={}) for _ in range(3)]
        assert [answer.status_code for answer in said] == [400, 400, 429]
        assert said[2].headers["Retry-After"] == "1"
        assert said[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert client.get("/v1/models").status_code == 200, "reading is free"
        assert served.metrics()["erv_rate_limited_total"] == 1


def test_what_the_gate_refuses_is_counted(folder: Path) -> None:
    with serving(folder) as served, served.client() as client:
        assert httpx.get(f"{served.address}/v1/models", trust_env=False).status_code == 401
        assert client.get("/v1/models", headers={"Host": "elsewhere"}).status_code == 400
        counts = [line for line in client.get("/metrics").text.splitlines() if "erv_requests_total{" in line]
        assert 'erv_requests_total{path="/v1/models",status="401"} 1.0' in counts
        assert 'erv_requests_total{path="/v1/models",status="400"} 1.0' in counts


# --- many at once


def test_waiting_requests_share_batches_and_each_gets_its_own(served: Served) -> None:
    before = served.metrics()["erv_answers_total"]
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        with served.client() as client:
            emotion = list(SAID)[number % 2]
            found[number] = client.post("/explain", json={"clip": f"{emotion}.mp4"}).json()["completion"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: COMPLETIONS[list(SAID)[number % 2]] for number in range(24)}
    assert served.metrics()["erv_answers_total"] == before + 24


def test_a_full_queue_refuses_and_a_waiting_request_knows_its_place(folder: Path) -> None:
    with serving(folder, batch=1, queue=3) as served:
        statuses: list[int] = []
        places: list[int] = []
        guard = threading.Lock()

        def ask() -> None:
            with served.client(Accept="text/event-stream") as client:
                answer = client.post("/explain", json={"clip": "anger.mp4"})
                with guard:
                    statuses.append(answer.status_code)
                    if answer.status_code == 429:
                        assert int(answer.headers["Retry-After"]) >= 1
                        assert answer.json()["error"]["code"] == "queue_full"
                    else:
                        events = events_of(answer.text)
                        assert events[-1]["kind"] == "done"
                        own = [event["place"] for event in events if event["kind"] == "queued"]
                        assert own == sorted(own, reverse=True)
                        places.extend(own)

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 429}
        assert 0 < max(places) <= 2
        assert served.metrics()["erv_waiting"] == 0


def test_retry_after_counts_the_queue_once(served: Served) -> None:
    """What a request waits grows with the queue, by which the time of an answer is multiplied."""
    service = Service(served.engine, Metrics(served.engine), batch=8, seconds=600)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def read() -> Request:
        return Request(clip="anger.mp4")

    async def ask() -> float:
        http = starlette.requests.Request({"type": "http", "headers": []}, receive)
        _, done = await service.answer(await service.take(http, read))
        return done.seconds.total

    async def ask_together() -> list[float]:
        return await asyncio.gather(*(ask() for _ in range(24)))

    totals = asyncio.run(ask_together())
    assert service._pace._seconds < 0.6 * sum(totals) / len(totals)


def test_a_request_has_one_place(folder: Path) -> None:
    """While it was handed over it counted as read and as waiting, so that half a queue was full."""
    with serving(folder, queue=2) as served:
        engine = served.engine
        with stopped(engine._serving.answerer._process.pid):
            with engine.place() as place:
                ticket, version = place.submit(Request(clip="anger.mp4"))
                assert version.name == "talking"
                with engine.place(), pytest.raises(QueueFull, match="2 requests wait already"):
                    engine.place().__enter__()
            with engine.place(), pytest.raises(QueueFull):
                engine.place().__enter__()
        assert isinstance(list(ticket.events(120))[-1], Done)
        with engine.place(), engine.place(), pytest.raises(QueueFull):
            engine.place().__enter__()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing until the end of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_clients_that_leave_are_not_answered(folder: Path, accept: str) -> None:
    with serving(folder, batch=1) as served:
        answers: list[httpx.Response] = []

        def ask() -> None:
            with served.client() as client:
                answers.append(client.post("/explain", json={"clip": "anger.mp4"}))

        others = [threading.Thread(target=ask) for _ in range(3)]
        for thread in others:
            thread.start()
        wait_for(lambda: served.engine.waiting + served.engine.answering == 3)
        host = served.address.removeprefix("http://")
        connection = http.client.HTTPConnection(host)
        headers = {**AUTHORIZED, "Content-Type": "application/json", "Accept": accept}
        connection.request("POST", "/explain", json.dumps({"clip": "anger.mp4"}), headers)
        wait_for(lambda: served.engine.waiting + served.engine.answering > len(others) - len(answers))
        connection.close()
        wait_for(lambda: served.metrics()["erv_clients_left_total"] == 1)
        for thread in others:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * 3
        wait_for(lambda: served.engine.waiting + served.engine.answering == 0)
        assert served.metrics()["erv_answers_total"] == 3


def test_clients_that_leave_before_their_answer_begins(folder: Path) -> None:
    """They leave while their requests are read and handed over."""
    body = json.dumps({"clip": "anger.mp4"}).encode()
    with serving(folder, batch=1) as served:
        place = httpx.URL(served.address)
        with stopped(served.engine._serving.answerer._process.pid):
            for left, accept in enumerate(("text/event-stream", "application/json") * 2, 1):
                head = (
                    f"POST /explain HTTP/1.1\r\nHost: {place.netloc.decode()}\r\nAccept: {accept}\r\n"
                    f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n"
                )
                with socket.create_connection((place.host, place.port)) as connection:
                    connection.sendall(f"{head}\r\n".encode() + body)
                wait_for(lambda left=left: served.metrics()["erv_clients_left_total"] == left)
        wait_for(lambda: served.engine.waiting + served.engine.answering == 0)


def test_what_takes_too_long_is_given_up(folder: Path) -> None:
    with serving(folder, seconds=0.05) as served, served.client() as client:
        answer = client.post("/explain", json={"clip": "anger.mp4"})
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "timeout"
        stream = client.post("/explain", json={"clip": "anger.mp4"}, headers={"Accept": "text/event-stream"})
        assert events_of(stream.text)[-1] == {
            "kind": "error",
            "sentence": "not answered within 0.05 s, so it was given up",
            "code": "timeout",
        }
        wait_for(lambda: served.engine.answering == served.engine.waiting == 0)


# --- faults and changes


def wait_for(condition: Any, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_model_that_dies_costs_its_requests_one_error_each(folder: Path) -> None:
    with serving(folder, batch=1) as served:
        answers: list[httpx.Response] = []

        def ask(stream: bool) -> None:
            with served.client(**({"Accept": "text/event-stream"} if stream else {})) as client:
                answers.append(client.post("/explain", json={"clip": "anger.mp4"}))

        threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: served.engine.waiting + served.engine.answering == 4)
        served.kill_model()
        for thread in threads:
            thread.join()
        for answer in answers:
            if answer.status_code == 200:
                assert events_of(answer.text)[-1]["code"] == "died"
            else:
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "model_died"
                assert answer.headers["Retry-After"]
        with served.client() as client:
            refused = client.post("/explain", json={"clip": "anger.mp4"})
            assert (refused.status_code, client.get("/ready").status_code) in ((503, 503), (200, 200))
            wait_for(lambda: client.get("/ready").status_code == 200)
            answer = client.post("/explain", json={"clip": "anger.mp4"})
            assert answer.json()["completion"] == COMPLETIONS["anger"]
        assert served.metrics()["erv_restarts_total"] == 1


class Moving:
    """A source whose folder can be changed, as an alias of the registry is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def newest(self) -> str:
        return str(self.folder)

    def fetch(self) -> Version:
        return FolderSource(self.folder).fetch()


@pytest.mark.timeout(1800)  # two models are loaded while others are asked
def test_another_version_takes_over_and_no_request_is_lost(folder: Path) -> None:
    import shutil

    second = folder / "second"
    shutil.copytree(folder / "talking", second)
    source = Moving(folder / "talking")
    with serving(folder, source, every=0.1) as served:
        stop = threading.Event()
        answers: list[tuple[int, str]] = []

        def ask() -> None:
            with served.client() as client:
                while not stop.is_set():
                    answer = client.post("/explain", json={"clip": "anger.mp4"})
                    answers.append((answer.status_code, answer.json().get("model", {}).get("id", "")))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: len(answers) > 4)
            first = served.engine._serving.answerer
            source.folder = second
            wait_for(lambda: served.engine.version.name == "second", 900)
            seen = len(answers)
            wait_for(lambda: len(answers) > seen + 8)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}
        assert {name for _, name in answers} == {"talking", "second"}
        assert answers[-1][1] == "second"
        wait_for(lambda: not first.alive)
        assert served.metrics()["erv_reloads_total"] == 1

        # One that can't be loaded changes nothing.
        broken = folder / "broken"
        broken.mkdir()
        (broken / "serving.json").write_text("{}")
        source.folder = broken
        wait_for(lambda: served.metrics()["erv_failed_reloads_total"] == 1)
        with served.client() as client:
            assert client.post("/explain", json={"clip": "anger.mp4"}).json()["model"]["id"] == "second"


class Slow(Moving):
    """A source that brings another version slowly, or not at all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.first = folder
        self.fault: OSError | None = None
        self.fetched, self.go_on = threading.Event(), threading.Event()
        self.times = 0

    def fetch(self) -> Version:
        if self.folder != self.first:
            self.times += 1
            self.fetched.set()
            assert self.go_on.wait(900)
            if self.fault is not None:
                raise self.fault
        return super().fetch()


@pytest.mark.timeout(1800)  # three models are loaded
def test_what_happens_while_another_version_is_brought(folder: Path) -> None:
    import shutil

    shutil.copytree(folder / "talking", folder / "third")
    source = Slow(folder / "talking")
    with serving(folder, source, every=0.1) as served, served.client() as client:
        # A process that died meanwhile was not replaced.
        source.folder = folder / "third"
        assert source.fetched.wait(60)
        served.kill_model()
        wait_for(lambda: client.get("/ready").status_code == 503)
        wait_for(lambda: client.get("/ready").status_code == 200)
        assert client.post("/explain", json={"clip": "anger.mp4"}).json()["model"]["id"] == "talking"
        assert served.metrics()["erv_restarts_total"] == 1

        # A full disk was no failure, and it was brought again at each look.
        source.fault = OSError(28, "No space left on device")
        source.go_on.set()
        wait_for(lambda: served.metrics()["erv_failed_reloads_total"] == 1)
        time.sleep(1)
        assert source.times == 1
        assert client.post("/explain", json={"clip": "anger.mp4"}).json()["model"]["id"] == "talking"

        # One that dies while the other is put in its place doesn't come back.
        source.fault = None
        assert served.engine._failed is not None
        served.engine._failed = (served.engine._failed[0], 0.0)
        wait_for(lambda: served.engine.version.name == "third", 900)
        answerer = served.engine._serving.answerer
        dead = Serving(served.engine.version, answerer)
        closed: list[bool] = []
        late = SimpleNamespace(close=lambda: closed.append(True))
        assert not served.engine._put(Serving(served.engine.version, cast("Answerer", late)), dead)
        assert closed
        assert served.engine._serving.answerer is answerer
        assert client.post("/explain", json={"clip": "anger.mp4"}).json()["model"]["id"] == "third"
        assert served.metrics()["erv_reloads_total"] == 1


# --- the page and the command


def test_the_page(served: Served, tmp_path: Path) -> None:
    with chromium() as browser:
        for dark in (False, True):
            with visit(browser, served.address, "/", password=KEY, dark=dark) as seen:
                assert seen.page.url.endswith("/docs")
                for summary in seen.page.locator("summary").all():
                    summary.click()
                text = seen.page.inner_text("main")
                for part in (
                    "/explain",
                    "/v1/chat/completions",
                    "max_new_tokens",
                    "sentences[].agrees",
                    "required",
                ):
                    assert part in text
                seen.require_accessible()
                seen.pictures(tmp_path, "dark" if dark else "light")
                assert [said for said in seen.troubles if "401" not in said] == []
                assert seen.foreign == []


def test_the_sample_of_the_page_runs(
    client: httpx.Client, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """It imported nothing, and had no clip."""
    found = re.search(r'aria-label="With OpenAI.s client"><code>(.*?)</code>', client.get("/docs").text, re.S)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes((folder / "clips/anger.mp4").read_bytes())
    exec(html.unescape(found[1]).replace('"KEY"', f'"{KEY}"'), {})
    assert capsys.readouterr().out == f"{COMPLETIONS['anger']}\n"


def test_metrics_have_no_times_of_their_making(client: httpx.Client) -> None:
    client.post("/explain", json={"clip": "anger.mp4"})
    text = client.get("/metrics").text
    assert "erv_answers_total" in text
    assert "_created" not in text


def test_the_command(folder: Path, tmp_path: Path) -> None:
    arguments = ["serve", "--bundle", str(folder / "talking"), "--port", "0", "--device", "cpu"]
    variables = {
        "ERV_SERVE_KEY": KEY,
        "ERV_SERVE_ROOT": str(folder / "clips"),
        "ERV_SERVE_HOSTS": "a.example",
    }
    with program(arguments, tmp_path / "log", folder=tmp_path, more=variables) as running:
        with httpx.Client(
            base_url=running.address, headers=AUTHORIZED, trust_env=False, timeout=60
        ) as client:
            assert client.get("/v1/models", headers={"Host": "a.example"}).status_code == 200
            assert client.post("/explain", json={"clip": "anger.mp4"}).json()["answer"] == "anger"
        for process in Path("/proc").iterdir():
            if process.name.isdecimal() and _parent(process) == running.process.pid:
                assert KEY.encode() not in (process / "environ").read_bytes(), "the model needs no key"
        assert running.end() == 0
    said = (tmp_path / "log").read_text()
    assert said.startswith(f"loading {folder}/talking ...\ntalking answers at {running.address}\n")
    assert KEY not in said


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "said"),
    [
        (["--host", "0.0.0.0"], {}, 2, "0.0.0.0 can be reached from other machines, and there is no key"),
        (["--host", "models.example"], {}, 2, "is not an IP address"),
        ([], {"ERV_SERVE_KEY": "short"}, 2, "at least 16"),
        ([], {"ERV_SERVE_HOSTS": "a.*.example"}, 2, "can't be the name of a host"),
        ([], {"ERV_SERVE_ROOT": "/nowhere"}, 1, "ERV_SERVE_ROOT is '/nowhere', not a folder"),
        (["--bundle", "."], {}, 1, "is no bundle"),
    ],
    ids=str,
)
def test_a_command_that_cannot_serve(
    folder: Path, tmp_path: Path, arguments: list[str], variables: dict[str, str], code: int, said: str
) -> None:
    import subprocess
    import sys

    bundle = [] if "--bundle" in arguments else ["--bundle", str(folder / "talking")]
    command = [sys.executable, "-c", "from erv.cli import main; main()", "serve", "--port", "0"]
    done = subprocess.run(
        [*command, *bundle, *arguments],
        cwd=tmp_path,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "")
    *before, error = done.stderr.splitlines()
    assert before == (["loading . ..."] if "--bundle" in arguments else [])
    assert error.startswith("error: ")
    assert said in error
