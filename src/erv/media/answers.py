"""What a worker process may answer: plain values and arrays of numbers, in an encoding that runs nothing.

A clip may have taken over the decoder, and with it the pipe to us. The worker is confined, but we are not. So
an answer is JSON, followed by the raw content of its arrays. Every size is checked against what was asked
before memory is taken, arrays can only hold numbers, and the caller rebuilds its result from checked fields
(`Form`). Whatever is not as it should be raises `AnswerError`, and the worker counts as one that died.
"""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")
Record = TypeVar("Record")

LONGEST_HEAD = 1 << 20  # bytes of JSON
_DTYPES = frozenset({"|u1", "<i2", "<i4", "<i8", "<f4", "<f8"})
_MOST_DIMENSIONS = 8
_LARGEST = 2**53  # of numbers
_LONGEST_TEXT = 2000
_PLAIN_BYTES = 64_000_000


class AnswerError(Exception):
    """An answer is not one that a worker of ours gives."""


@dataclass(frozen=True)
class Form(Generic[Item, Result]):
    """What the results of a worker's function may be.

    Attributes:
        read: builds the result for an item from a plain value: None, bool, int, float, str, list, dict or
            array. A data class arrives as a dict of its fields. Raises any exception if it is none.
        most_bytes: how much the arrays of a result for an item may take.
    """

    read: Callable[[Item, Any], Result]
    most_bytes: Callable[[Item], int] = lambda _: _PLAIN_BYTES


def plain() -> Form[Any, Any]:
    """Any plain value."""
    return Form(lambda _, value: value)


@dataclass
class Packed:
    """An encoded answer: JSON, and the content of the arrays that it counts."""

    head: bytes = b""
    arrays: list[np.ndarray] = field(default_factory=list)


def pack(kind: str, value: Any) -> Packed:
    """Encodes an answer.

    Raises:
        TypeError, ValueError: the value holds something else than plain values, data classes and arrays, or
            is too long.
    """
    packed = Packed()
    tree = _tree(value, packed.arrays)
    forms = [[array.dtype.str, array.shape] for array in packed.arrays]
    packed.head = json.dumps({"kind": kind, "value": tree, "arrays": forms}, allow_nan=False).encode()
    if len(packed.head) > LONGEST_HEAD:
        raise ValueError(f"an answer of {len(packed.head)} bytes beside its arrays, at most {LONGEST_HEAD}")
    return packed


def unpack(head: bytes, most_bytes: int, read: Callable[[int], np.ndarray]) -> tuple[str, Any]:
    """Decodes an answer: its kind and its value.

    Args:
        head: its JSON.
        most_bytes: that its arrays may take.
        read: gives the next so many bytes of the pipe as uint8 in memory of our own.

    Raises:
        AnswerError: it is no answer.
        EOFError, OSError: by `read`.
    """
    try:
        answer = json.loads(head, parse_constant=_refuse)
        kind, tree, forms = answer["kind"], answer["value"], answer["arrays"]
        sizes = [_size(dtype, shape) for dtype, shape in forms]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise AnswerError(f"no answer: {type(error).__name__}") from error
    if sum(sizes) > most_bytes:
        raise AnswerError(f"{sum(sizes)} bytes, at most {most_bytes} were asked for")
    contents = [read(size) for size in sizes]
    try:
        arrays = [
            content.view(dtype).reshape(shape)
            for content, (dtype, shape) in zip(contents, forms, strict=True)
        ]
        return str(kind), _value(tree, arrays)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise AnswerError(f"no answer: {type(error).__name__}") from error


def record_of(kind: type[Record], value: Any) -> Record:
    """Builds a data class of plain fields from a dict of them.

    Raises:
        AnswerError: a field is missing, unknown, of another type, or no finite number of usual size.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise AnswerError(f"no {kind.__name__}")
    return kind(**{name: _checked(kind, name, value[name], hint) for name, hint in hints.items()})


def array_of(value: Any, dtype: type[np.generic], dimensions: int) -> np.ndarray:
    """The value, if it is an array of this kind; raises AnswerError otherwise."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != dimensions:
        raise AnswerError(f"no {np.dtype(dtype)} array of {dimensions} dimensions")
    return value


def clean(text: str) -> str:
    """The text without what could control a terminal or break a file, and not longer than a message."""
    short = text[:_LONGEST_TEXT]
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in short)


def _checked(kind: type, name: str, value: Any, hint: Any) -> Any:
    allowed = typing.get_args(hint) or (hint,)
    if type(value) is int and int not in allowed and float in allowed:
        value = float(value) if abs(value) <= _LARGEST else math.inf
    fits = type(value) in allowed
    if isinstance(value, int | float):
        fits = fits and math.isfinite(value) and abs(value) <= _LARGEST
    if not fits:
        raise AnswerError(f"no {name} of a {kind.__name__}")
    return clean(value) if isinstance(value, str) else value


def _tree(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value as JSON; arrays become their number."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return _tree(value.item(), arrays)
    if isinstance(value, list | tuple):
        return [_tree(entry, arrays) for entry in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"map": {name: _tree(entry, arrays) for name, entry in value.items()}}
    if isinstance(value, np.ndarray) and value.dtype.str in _DTYPES:
        arrays.append(np.ascontiguousarray(value).reshape(value.shape))
        return {"array": len(arrays) - 1}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        return _tree(fields, arrays)
    raise TypeError(f"an answer can't hold a {type(value).__qualname__}")


def _value(tree: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_value(entry, arrays) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if tree.keys() == {"array"} and type(tree["array"]) is int and tree["array"] >= 0:
        return arrays[tree["array"]]
    entries = tree["map"]
    if not isinstance(entries, dict):
        raise TypeError("no map")
    return {name: _value(entry, arrays) for name, entry in entries.items()}


def _size(dtype: Any, shape: Any) -> int:
    """Bytes of an array; raises ValueError if it is none of ours."""
    if dtype not in _DTYPES or not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError("no array of numbers")
    if not all(type(length) is int and 0 <= length <= _LARGEST for length in shape):
        raise ValueError("no shape")
    return int(np.dtype(dtype).itemsize) * math.prod(shape)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
