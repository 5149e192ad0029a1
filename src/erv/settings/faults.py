"""Faults that pydantic finds in `params.yaml`, each as one line: where, what, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_LONGEST = 80
# Where parameters went that stood elsewhere in params.yaml before.
MOVED = {
    "runtime.accelerate": "machine.accelerate",
    "runtime.processes": "machine.processes",
    "runtime.feature_cache_gb": "machine.feature_cache_gb",
    "validate.workers": "machine.validate.workers",
    "extract.workers": "machine.extract.workers",
    "extract.dask": "machine.extract.dask",
    "sft.rows_per_pass": "machine.sft.rows_per_pass",
    "grpo.rows_per_pass": "machine.grpo.rows_per_pass",
    "grpo.sample_steps": "machine.grpo.sample_steps",
    "sft.save_steps": "machine.sft.save_steps",
    "grpo.save_steps": "machine.grpo.save_steps",
    "grpo.train": "compare.train",
    "grpo.variants": "variants",
    "evaluate.policies": "compare.policies",
    "evaluate.judge": "evaluate.judges",
    "distill.rollouts": "rollouts",
}
_NO_MAPPING = {"model_type", "model_attributes_type", "dict_type"}


def own_faults(faults: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Without those that only follow from others: a list whose every item is at fault isn't too short."""
    places = [fault["loc"] for fault in faults]
    return [
        fault
        for fault in faults
        if fault["type"] != "too_short"
        or not any(place != fault["loc"] and place[: len(fault["loc"])] == fault["loc"] for place in places)
    ]


def describe(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    """One line for one fault.

    Args:
        fault: an item of `ValidationError.errors()`.
        model: what was validated.
    """
    path, kind = _place(model, fault["loc"])[0], fault["type"]
    name = ".".join(path)
    if kind == "missing":
        return f"{name}: missing; add it (the comments of the shipped params.yaml explain each parameter)"
    if kind == "extra_forbidden" and name in MOVED:
        return f"{name}: is now {MOVED[name]}; move it there"
    if kind == "extra_forbidden":
        section = _place(model, fault["loc"][:-1])[1]
        known = sorted(key for item in _models(section) for key in _keys(item))
        return f"{name}: unknown parameter; {_suggestion(path[-1], known)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_tag(name, _place(model, fault["loc"])[1], fault["ctx"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if kind in _NO_MAPPING:
        message = "expected a mapping"
    if kind == "tuple_type":
        message = "expected a list"
    if kind == "too_short":
        message = f"expected at least {fault['ctx']['min_length']}"
    if not path:
        return message
    found = _found(fault["input"], kind)
    return f"{name}: {message}, found {found}" if found else f"{name}: {message}"


def _wrong_tag(name: str, union: Any, context: Mapping[str, Any]) -> str:
    """The key that chooses a model of a union is missing, or has an unknown value."""
    key = str(context["discriminator"]).strip("'")
    tags = [tag for item in _models(union) for tag in get_args(item.model_fields[key].annotation)]
    if "tag" not in context:
        return f"{name}.{key}: missing; expected one of {', '.join(tags)}"
    return f"{name}.{key}: unknown {key} {context['tag']!r}; {_suggestion(context['tag'], tags)}"


def _suggestion(given: str, known: list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def _found(value: object, kind: str) -> str:
    """The value in the file; empty for a section, where the message names the keys itself."""
    if isinstance(value, Mapping):
        return "" if kind == "value_error" else "a mapping"
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _place(model: type[BaseModel], location: Iterable[Any]) -> tuple[list[str], Any]:
    """The path of a location as written in the file, and the type expected there."""
    path: list[str] = []
    expected: Any = model
    for part in location:
        chosen = [item for item in _models(expected) if _is_tag(part, item)]
        if get_origin(_plain(expected)) in (Union, UnionType) and chosen:
            expected = chosen[0]  # pydantic's path includes the union's model; the file's does not
        elif part != "[key]":
            path.append(str(part))
            expected = _below(expected, part)
    return path, expected


def _below(expected: Any, part: Any) -> Any:
    """The type of a key or an item inside a value of type `expected`; None if unknown."""
    for item in _models(expected):
        for name, field in item.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
    plain = _plain(expected)
    if get_origin(plain) in (dict, tuple):
        return get_args(plain)[0 if get_origin(plain) is tuple else 1]
    return None


def _plain(expected: Any) -> Any:
    return get_args(expected)[0] if get_origin(expected) is Annotated else expected


def _models(expected: Any) -> list[type[BaseModel]]:
    """The models in a type: itself, or the members of a union."""
    plain = _plain(expected)
    parts = get_args(plain) if get_origin(plain) in (Union, UnionType) else (plain,)
    return [item for item in parts if isinstance(item, type) and issubclass(item, BaseModel)]


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _is_tag(part: Any, model: type[BaseModel]) -> bool:
    fields = [field.annotation for field in model.model_fields.values()]
    return any(get_origin(item) is Literal and part in get_args(item) for item in fields)
