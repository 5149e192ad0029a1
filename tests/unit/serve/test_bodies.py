"""What clients send to the served model."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from erv.answering.requests import Request
from erv.serve.bodies import _parsed, file_in, fitting, is_data_uri
from erv.serve.chat_request import ChatRequest
from erv.serve.schemas import ExplainRequest
from erv.web.errors import Refused

FILM, SOUND = b"\x00film", b"RIFFsound"
IN_BASE64 = base64.b64encode(FILM).decode()
CLIP = {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{IN_BASE64}"}}
NAMED = {"type": "video_url", "video_url": {"url": "monday/1.mp4"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "wav"}}


def chat(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}], **more}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (chat(CLIP), Request(content=FILM)),
        (chat(NAMED), Request(clip="monday/1.mp4")),
        (chat(text("What?"), CLIP, AUDIO), Request(content=FILM, audio=SOUND, prompt="What?")),
        (chat(text("a"), NAMED, text("b")), Request(clip="monday/1.mp4", prompt="a\nb")),
        (chat(CLIP, max_tokens=5), Request(content=FILM, max_new_tokens=5)),
        (chat(CLIP, max_completion_tokens=5), Request(content=FILM, max_new_tokens=5)),
        (chat(CLIP, dataset="mafw", subtitle="No!"), Request(content=FILM, dataset="mafw", subtitle="No!")),
        (
            chat(
                CLIP, temperature=0.0, top_p=1, n=1, seed=3, user="u", logprobs=False, store=False,
                response_format={"type": "text"}, modalities=["text"], stream_options={"include_usage": True},
                presence_penalty=0, frequency_penalty=None,
            ),
            Request(content=FILM),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_chat(body: dict[str, Any], asked: Request) -> None:
    assert fitting(body, ChatRequest).asked() == asked


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "model", "is missing"),
        ([], None, "valid dictionary"),
        (chat(CLIP, tools=[]), "tools", "there is no such field here; there are model, messages"),
        (
            chat(CLIP, temperature=0.7),
            None,
            "temperature must be 0 or left out: answers are decoded greedily",
        ),
        (chat(CLIP, temperature="0"), None, "temperature must be 0"),
        (chat(CLIP, n=2), None, "n must be 1 or left out: there is one answer"),
        (chat(CLIP, n=True), None, "n must be 1"),
        (chat(CLIP, logprobs=True), None, "logprobs must be False"),
        (chat(CLIP, store=True), None, "nothing is kept"),
        (chat(CLIP, response_format={"type": "json_object"}), None, "response_format must be"),
        (chat(CLIP, max_tokens=0), "max_tokens", "greater than or equal to 1"),
        (chat(CLIP, max_tokens=1, max_completion_tokens=2), None, "differ"),
        ({"model": "m", "messages": []}, "messages", "at least 1"),
        ({"model": "m", "messages": chat(CLIP)["messages"] * 2}, "messages", "at most 1"),
        ({"model": "m", "messages": [{"role": "system", "content": "x"}]}, "messages[0].role", "'user'"),
        (
            {"model": "m", "messages": [{"role": "user", "content": "x"}]},
            "messages[0].content",
            "has 0 parts",
        ),
        (chat(CLIP, NAMED), "messages[0].content", "has 2 parts of the type video_url, expected 1"),
        (chat(CLIP, AUDIO, AUDIO), "messages[0].content", "2 parts of the type input_audio, at most 1"),
        (chat({"type": "image_url"}), "messages[0].content[0]", "image_url"),
        (chat({**CLIP, "detail": "low"}), "messages[0].content[0].video_url.detail", "no such field"),
        (
            chat(text("x"), {"type": "video_url", "video_url": {"url": "data:video/mp4,abc"}}),
            "messages[0].content[1].video_url.url",
            "the data: URI is not in base64",
        ),
        (
            chat(CLIP, {"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}}),
            "messages[0].content[1].input_audio.data",
            "not in base64",
        ),
        (
            chat(CLIP, {"type": "input_audio", "input_audio": {"data": "", "format": "midi"}}),
            "messages[0].content[1].input_audio.input_audio.format",
            "'wav'",
        ),
    ],
    ids=str,
)
def test_chat_that_is_refused(body: Any, param: str | None, said: str) -> None:
    with pytest.raises(Refused) as refused:
        fitting(body, ChatRequest).asked()
    assert refused.value.status_code == 400
    assert said in refused.value.detail
    assert refused.value.param == param


@pytest.mark.parametrize("body", [{}, {"clip": "a", "content": "b"}, {"audio": "x"}])
def test_a_question_is_about_one_clip(body: dict[str, str]) -> None:
    with pytest.raises(Refused, match="one of the two"):
        fitting(body, ExplainRequest)


def test_files() -> None:
    broken = "\n".join(IN_BASE64[n : n + 3] for n in range(0, len(IN_BASE64), 3))
    for sent in (IN_BASE64, broken, f"data:video/mp4;base64,{IN_BASE64}", f"DATA:;BASE64,{IN_BASE64}"):
        assert file_in(sent, "x") == FILM
    for sent, said in [("", "x: the file is empty"), ("ä", "x: not in base64"), ("abc", "x: not in base64")]:
        with pytest.raises(Refused, match=said):
            file_in(sent, "x")
    assert is_data_uri("data:video/mp4;base64,AAAA")
    assert not is_data_uri("data.mp4")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (rb'{"messages": [{"content": "a\ud83d"}]}', "messages[0].content"),
        (rb'{"model": {"\udc00": 1}}', "model"),
        (rb'["\ud83d"]', "[0]"),
        (b'"\xed\xa0\xbd"', None),
    ],
)
def test_half_a_character_is_refused_by_its_place(body: bytes, param: str | None) -> None:
    with pytest.raises(Refused, match="half a character, as of an emoji that was cut") as refused:
        _parsed(body, ExplainRequest)
    assert refused.value.param == param


def test_whole_characters_pass_and_deep_bodies_are_none() -> None:
    assert _parsed(rb'{"clip": "\ud83d\ude00.mp4"}', ExplainRequest).clip == "\U0001f600.mp4"
    for depth in (400, 900, 5000, 100_000):
        with pytest.raises(Refused):
            _parsed(b"[" * depth + b"]" * depth, ExplainRequest)
