"""Whether a parameter has whole numbers only, by its type in the settings."""

from __future__ import annotations

import typing
from types import UnionType
from typing import Any

from pydantic import BaseModel

from erv.settings import Settings


def whole(name: str) -> bool | None:
    """Whether a parameter takes whole numbers only; None for one that takes no numbers or isn't known."""
    found: Any = Settings
    for part in name.split("."):
        found = next(filter(None, (_within(one, part) for one in _kinds(found))), None)
    kinds = _kinds(found)
    if float in kinds:
        return False
    return True if int in kinds else None


def _within(kind: Any, part: str) -> Any:
    """The type of one entry of a section or mapping; None if it has none of this name."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        return next((field.annotation for key, field in fields.items() if part in (key, field.alias)), None)
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is dict:
        return arguments[1]
    if typing.get_origin(kind) is tuple:  # rewards, which params.yaml has as names with their weights
        (weighed,) = (*(one for one in arguments if "weight" in getattr(one, "model_fields", ())), None)[:1]
        return None if weighed is None else weighed.model_fields["weight"].annotation
    return None


def _kinds(annotation: Any) -> list[Any]:
    """The types that an annotation allows."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    if origin in (typing.Union, UnionType):
        return [kind for one in typing.get_args(annotation) for kind in _kinds(one)]
    return [annotation]
