"""Whether what a stage read is what its `dvc.lock` says was written; what no stage wrote is a broken link."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from erv.accept.accept import is_code
from erv.lineage.entries import Locked, differing
from erv.lineage.links import Link
from erv.pipeline import Input, named_in_parameters

_SHOWN = 3  # stages that a link names
_REMEDY = "run `erv run`"


def input_links(
    lock: Locked, name: str, inputs: Sequence[Input], written: Sequence[str] | None
) -> Iterator[Link]:
    """A link for every input of a stage that is not what the lock says was written; none for the others.

    Args:
        lock: the entries.
        name: of the stage.
        inputs: of it.
        written: what the stages of the `dvc.yaml` beside the lock write, see `written_paths`; None if nobody
            knows.
    """
    for item in inputs:
        if item.as_written or (not item.makers and is_source(item.path)):
            continue
        if item.makers:
            yield from _compared(lock, item)
        elif not _is_given(lock, name, item.path):
            if _matches(item.path, [*_of_other_items(lock), *(written or ())]):
                detail = f"read as {item.md5}, and no entry of dvc.lock says who wrote it; {_REMEDY}"
                yield Link(item.path, False, detail)
            elif written is None:
                yield Link(item.path, None, "no entry of dvc.lock wrote it, and the dvc.yaml is missing")


def given_facts(lock: Locked, name: str, inputs: Sequence[Input]) -> list[str]:
    """Sentences about the files that no stage wrote, with DVC's hash of each: a prompt, say.

    Sources and code aside; `arms` calls what it takes in by another name.
    """
    if name.partition("@")[0] == "arms":
        return []
    return [
        f"not made by a stage: {item.path}  md5 {item.md5}"
        for item in inputs
        if not item.makers and not item.as_written and not is_source(item.path) and not is_code(item.path)
    ]


def is_source(path: str) -> bool:
    """Whether a file is the lock of a source."""
    return path.endswith(".lock.json")


def _compared(lock: Locked, item: Input) -> Iterator[Link]:
    if item.as_written is None:
        yield Link(item.path, None, f"whether outputs of {_named(item.makers)} make it up can't be told here")
        return
    dependency = {"path": item.path, "md5": item.md5}
    if links := differing(lock, set(item.makers), dependency):
        yield from links
    else:
        detail = f"read as {item.md5}, which the outputs of {_named(item.makers)} in dvc.lock don't make up"
        yield Link(item.path, False, f"{detail}; {_REMEDY}")


def _is_given(lock: Locked, name: str, path: str) -> bool:
    """Whether an input is code, or named by the stage's own parameters: a prompt, a policy from elsewhere."""
    return is_code(path) or path in named_in_parameters(lock[name])


def _of_other_items(lock: Locked) -> Iterator[str]:
    """What stages of a matrix write, with a star for the item."""
    for name, entry in lock.items():
        item = re.compile(rf"(?<![\w-]){re.escape(name.partition('@')[2])}(?![\w-])")
        for out in entry.get("outs") or [] if "@" in name else []:
            if item.search(out["path"]):
                yield item.sub("*", out["path"])


def _matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether stages write a path, in it or around it."""
    return any(
        fnmatchcase(path, pattern) or fnmatchcase(path, f"{pattern}/*") or pattern.startswith(f"{path}/")
        for pattern in patterns
    )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
