"""Whether a change of a file can change what runs.

Python is compared by its syntax tree without docstrings, so that comments, docstrings and formatting don't
count; YAML and JSON by their values, in their order. Of all other files, every byte counts.
"""

from __future__ import annotations

import ast
import json
from pathlib import PurePosixPath

from erv.files import parse_yaml
from erv.syntax import drop_docstrings, reads_docstrings

HARMLESS = "comments, docstrings or formatting"
CODE = "code"
VALUES = "values"
OTHER = "not Python, YAML or JSON"
UNREADABLE = "can't be parsed"
ADDED = "added"
REMOVED = "removed"
UNKNOWN = "no commit holds what it was"
LISTED = "not a dependency before"


def change_of(path: str, before: bytes, after: bytes) -> str:
    """How two contents of a file differ: `HARMLESS`, or a word for what differs.

    Args:
        path: its name, whose ending says what it holds.
        before: what it held.
        after: what it holds; not the same bytes.
    """
    ending = PurePosixPath(path).suffix
    try:
        if ending == ".py":
            return HARMLESS if _same_code(before, after) else CODE
        if ending in (".yaml", ".yml"):
            return HARMLESS if repr(parse_yaml(before)) == repr(parse_yaml(after)) else VALUES
        if ending == ".json":
            return HARMLESS if repr(json.loads(before)) == repr(json.loads(after)) else VALUES
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return UNREADABLE
    return OTHER


def _same_code(before: bytes, after: bytes) -> bool:
    trees = [ast.parse(before), ast.parse(after)]
    # Code that reads docstrings, or its own source, may do something else when they change.
    if not any(reads_docstrings(tree) for tree in trees):
        for tree in trees:
            drop_docstrings(tree)
    one, other = (ast.dump(tree) for tree in trees)
    return one == other
