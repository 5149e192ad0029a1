"""`/openapi.json` for people: the operations with the fields of their bodies, for a page without scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_METHODS = ("get", "post", "put", "delete")


@dataclass(frozen=True)
class Field:
    """A field of a body; those of objects in it are named with a dot, those of lists with `[]`."""

    name: str
    type: str
    required: bool
    text: str


@dataclass(frozen=True)
class Operation:
    """What an address does.

    Attributes:
        method: in capitals.
        path: the address.
        group: the heading that it stands under.
        text: what it does.
        takes: types of content of its body.
        body: the fields of its body.
        answer: the fields of its answer; empty if it is no JSON, or any.
    """

    method: str
    path: str
    group: str
    text: str
    takes: tuple[str, ...]
    body: tuple[Field, ...]
    answer: tuple[Field, ...]


def operations(openapi: Mapping[str, Any]) -> list[Operation]:
    """The operations of an OpenAPI document, in its order."""
    return [
        _operation(method.upper(), path, item, openapi)
        for path, methods in openapi["paths"].items()
        for method, item in methods.items()
        if method in _METHODS
    ]


def _operation(method: str, path: str, item: Mapping[str, Any], openapi: Mapping[str, Any]) -> Operation:
    bodies = item.get("requestBody", {}).get("content", {})
    answers = item["responses"].get("200", {}).get("content", {})
    body: Mapping[str, Any] = next((one["schema"] for one in bodies.values()), {})
    answer = answers.get("application/json", {}).get("schema", {})
    return Operation(
        method,
        path,
        (item.get("tags") or ["Other"])[0],
        item.get("description", item.get("summary", "")),
        tuple(bodies),
        tuple(_fields(body, openapi)),
        tuple(_fields(answer, openapi)),
    )


def _fields(schema: Mapping[str, Any], openapi: Mapping[str, Any], before: str = "") -> Iterator[Field]:
    schema = _resolved(schema, openapi)
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        part = _resolved(part, openapi)
        options = [_resolved(one, openapi) for one in part.get("anyOf", part.get("oneOf", [part]))]
        yield Field(
            before + name,
            " or ".join(dict.fromkeys(_type(one, openapi) for one in options)),
            name in required,
            part.get("description", ""),
        )
        for one in options:
            yield from _inside(one, openapi, before + name)


def _inside(schema: Mapping[str, Any], openapi: Mapping[str, Any], name: str) -> Iterator[Field]:
    if schema.get("type") == "array":
        items = _resolved(schema.get("items", {}), openapi)
        for one in items.get("oneOf", items.get("anyOf", [items])):
            yield from _inside(_resolved(one, openapi), openapi, f"{name}[]")
    elif schema.get("properties"):
        yield from _fields(schema, openapi, f"{name}.")


def _type(schema: Mapping[str, Any], openapi: Mapping[str, Any]) -> str:
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        items = _resolved(schema.get("items", {}), openapi)
        inner = {_type(_resolved(one, openapi), openapi) for one in items.get("oneOf", [items])}
        return f"list of {' or '.join(sorted(inner))}"
    if schema.get("format") == "binary":
        return "file"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'], openapi)}s"
    return str(kind)


def _resolved(schema: Mapping[str, Any], openapi: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        found: Mapping[str, Any] = openapi
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema
