"""The page that describes the API, from the OpenAPI document of the real application."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import FastAPI

from erv.serve.chat import chat_routes
from erv.serve.description import Operation, operations
from erv.serve.explain import explain_routes


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = FastAPI()
    app.include_router(explain_routes(None))  # type: ignore[arg-type]  # nothing is asked here
    app.include_router(chat_routes(None))  # type: ignore[arg-type]
    return app.openapi()


@pytest.fixture(scope="module")
def found(document: dict[str, Any]) -> dict[str, Operation]:
    return {item.path: item for item in operations(document)}


def test_bodies_are_described_in_full(document: dict[str, Any], found: dict[str, Operation]) -> None:
    explain, chat = found["/explain"], found["/v1/chat/completions"]
    assert explain.takes == ("application/json", "multipart/form-data")
    assert {row.name: row.type for row in explain.body}["max_new_tokens"] == "integer or null"
    assert [row.name for row in chat.body if row.required] == [
        "model", "messages", "messages[].role", "messages[].content",
        "messages[].content[].type", "messages[].content[].text",
        "messages[].content[].type", "messages[].content[].video_url", "messages[].content[].video_url.url",
        "messages[].content[].type", "messages[].content[].input_audio",
        "messages[].content[].input_audio.data", "messages[].content[].input_audio.format",
    ]  # fmt: skip
    assert "$defs" not in json.dumps(document["paths"])
    form = document["paths"]["/explain"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["content"]["format"] == "binary"


def test_answers_are_described(found: dict[str, Operation]) -> None:
    types = {row.name: row.type for row in found["/explain"].answer}
    assert types["scores"] == "object of numbers"
    assert types["sentences[].agrees"] == "boolean or null"
    assert types["model.bundle"] == "string"
    assert found["/v1/models"].method == "GET"
