"""`dvc.lock`: its entries, and the copy that repairs it.

DVC writes the file in place. Killed while it writes, it leaves an empty file, half of one, or a shorter one
that still reads as a lock. So a good copy is kept in `.erv/locks` before and after each stage, and put back
when the file is damaged or was cut short. The results of a stage whose entry is lost with it come back from
DVC's run cache, which DVC writes before the lock.

A lock that someone put there on purpose stays: one that git knows (a checkout, a stash), and one whose last
entries are not exactly those that are missing.
"""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erv.errors import ErvError
from erv.files import parse_yaml, whole_file

NAME = "dvc.lock"
KEPT = Path(".erv/locks/dvc.lock")
DAMAGED = Path(".erv/locks/dvc.lock.damaged")

Entries = dict[str, dict[str, Any]]

# Two results can't be merged line by line: an entry could say what no run has made.
_UNMERGED = "git has not merged two results in it"
_CHOOSE = (
    f"take one side with `git checkout --ours {NAME}` or `git checkout --theirs {NAME}` (in a rebase, yours"
    f" are theirs) and `git add {NAME}`, and let `erv run` make or fetch the rest"
)
_MARKER = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


class PipelineError(ErvError):
    """The pipeline can't be read or run."""


def read_lock_entries(path: str | Path = NAME) -> Entries:
    """The entries of `dvc.lock` by stage name; nothing when no stage has ever run.

    DVC writes the file in place. If the lock of a workspace looks damaged or cut short, the DVC of another
    stage may just be writing it: it is read again when nobody is.

    Raises:
        PipelineError: the file is damaged.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.name == NAME and (path.parent / ".dvc").is_dir() and _content_fault(path.parent, content):
            with _nobody_writes(path.parent):
                content = path.read_bytes()
        return dict(_parse(content))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PipelineError(f"{path}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise PipelineError(f"{path}: {error}; {_remedy(path)}") from None


def lock_fault(workspace: str | Path = ".") -> str | None:
    """What is wrong with the workspace's `dvc.lock`, with the remedy, in one sentence; None if nothing is."""
    root = Path(workspace)
    if _is_unmerged(root):
        return f"{NAME}: {_UNMERGED}; {_CHOOSE}"
    fault = _fault(root)
    return None if fault is None else f"{NAME}: {fault}; {_remedy(root / NAME)}"


def repair_lock(workspace: str | Path = ".") -> str | None:
    """Puts the good copy back if `dvc.lock` is damaged or was cut short; keeps a copy if it is good.

    The damaged file stays as `.erv/locks/dvc.lock.damaged`.

    Returns:
        A sentence for the user if the file was restored.

    Raises:
        PipelineError: it is damaged, and there is no good copy, in git either; or git has not merged two
            results in it, and only the user can choose.
    """
    root = Path(workspace)
    if _is_unmerged(root):
        raise PipelineError(f"{NAME}: {_UNMERGED}; {_CHOOSE}")
    if _fault(root) is None:
        keep_lock(root)
        return None
    with _nobody_writes(root):
        fault = _fault(root)  # until now, DVC may just have been writing
        if fault is None:
            keep_lock(root)
            return None
        good = _good_copy(root)
        if good is None:
            raise PipelineError(f"{NAME}: {fault}; {_remedy(root / NAME)}")
        content, source = good
        _write(root / DAMAGED, (root / NAME).read_bytes())
        _write(root / NAME, content)
    return f"{NAME} was damaged ({fault}): restored from {source}; the damaged file is {DAMAGED}"


def keep_lock(workspace: str | Path = ".") -> None:
    """Copies a good `dvc.lock`; without one, forgets the copy: whoever deletes it wants to start over."""
    root = Path(workspace)
    try:
        content = (root / NAME).read_bytes()
    except FileNotFoundError:
        (root / KEPT).unlink(missing_ok=True)
        return
    if content != _read(root / KEPT) and _content_fault(root, content) is None:
        _write(root / KEPT, content)


def _fault(root: Path) -> str | None:
    """What is wrong with the file as it is now; a missing one is no fault."""
    try:
        content = (root / NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return _content_fault(root, content) or _refused_by_dvc(content)


def _content_fault(root: Path, content: bytes) -> str | None:
    try:
        entries = _parse(content)
    except ValueError as error:
        return str(error)
    good = _good_copy(root)
    before = (_entries(good[0]) or {}) if good else {}
    cut = _cut(entries, before)
    if before and not content.endswith(b"\n"):
        cut = cut or "the end of its last line is missing"
    return None if cut is None or _known_to_git(root, content) else cut


@functools.lru_cache(maxsize=8)  # the same few versions are read before and after every stage
def _parse(content: bytes) -> Entries:
    """The entries in the content of a lock.

    Raises:
        ValueError: DVC would not have written it.
    """
    if not content.strip():
        raise ValueError("empty")
    if _MARKER.search(content):
        raise ValueError(_UNMERGED)
    document: Any = parse_yaml(content)
    if not isinstance(document, dict) or not isinstance(document.get("stages", {}), dict):
        raise ValueError("not a mapping with stages")
    if document.get("schema") != "2.0":
        raise ValueError("not a lock of schema 2.0")
    entries: Entries = document.get("stages", {})
    for name, entry in entries.items():
        if not isinstance(name, str) or not isinstance(entry, dict) or "cmd" not in entry:
            raise ValueError(f"the entry of {name} has no command")
        if not isinstance(entry.get("params", {}), dict):
            raise ValueError(f"the params of {name} are not a mapping")
        for kind in ("deps", "outs"):
            items = entry.get(kind, [])
            if not isinstance(items, list) or not all(_is_item(item) for item in items):
                raise ValueError(f"the {kind} of {name} are not paths with their hashes")
    return entries


def _is_item(item: Any) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        return False
    md5 = item.get("md5")
    if md5 is None:  # a file elsewhere has a hash of another kind
        return len(item.keys() - {"path", "hash"}) > 0
    return isinstance(md5, str) and _MD5.fullmatch(md5) is not None


def _entries(content: bytes) -> Entries | None:
    try:
        return _parse(content)
    except ValueError:
        return None


def _cut(entries: Entries, before: Entries) -> str | None:
    """How the end of the file is missing; None if it isn't.

    DVC keeps the order of the entries and of what is in them. What a killed DVC wrote is therefore the
    beginning of a lock.
    """
    names, known = list(entries), list(before)
    if len(names) < len(known) and names == known[: len(names)]:
        return f"{len(known) - len(names)} of {len(known)} entries are missing"
    last = names[-1] if names else None
    if last in before:
        items, expected = _items(entries[last]), _items(before[last])
        if len(items) < len(expected) and items == expected[: len(items)]:
            return f"the end of the entry of {last} is missing"
    return None


def _items(entry: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Dependencies, parameters and outputs of an entry, in the order of the file."""
    found = [("deps", item["path"], "") for item in entry.get("deps", [])]
    for file, values in entry.get("params", {}).items():
        found += [("params", str(file), str(name)) for name in values or {}]
    return found + [("outs", item["path"], "") for item in entry.get("outs", [])]


def _good_copy(root: Path) -> tuple[bytes, str] | None:
    """The newest lock that is known to be whole, and where it is: our copy, else that of the last commit."""
    for content, source in ((_read(root / KEPT), str(KEPT)), (_git(root, "show", f"HEAD:./{NAME}"), "git")):
        if content and _entries(content) is not None:
            return content, source
    return None


@functools.lru_cache(maxsize=8)
def _refused_by_dvc(content: bytes) -> str | None:
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import parse_yaml as parse_as_dvc
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_as_dvc(content.decode(), NAME))
    except (DvcException, Invalid, ValueError) as error:
        return f"DVC refuses it ({' '.join(str(error).split())})"
    return None


def _known_to_git(root: Path, content: bytes) -> bool:
    """Whether git has stored this very content: as a commit, a stash or in the index."""
    name = _git(root, "hash-object", "--path", NAME, "--stdin", given=content)
    return name is not None and _git(root, "cat-file", "-e", name.decode().strip()) is not None


def _git(root: Path, *arguments: str, given: bytes = b"") -> bytes | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(root), *arguments], input=given, capture_output=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


@contextmanager
def _nobody_writes(root: Path) -> Iterator[None]:
    """Holds DVC's own lock, under which it writes the file."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
            yield
    except DvcException as error:
        raise PipelineError(f"{NAME}: can't be locked ({' '.join(str(error).split())})") from error


def _is_unmerged(root: Path) -> bool:
    """Whether both sides of a merge are in the file, or git waits for one of them to be taken."""
    content = _read(root / NAME)
    return content is not None and (
        _MARKER.search(content) is not None or bool(_git(root, "ls-files", "--unmerged", "--", NAME))
    )


def _remedy(path: Path) -> str:
    if _MARKER.search(_read(path) or b""):
        return _CHOOSE
    if path.name == NAME and _good_copy(path.parent) is not None:
        return "`erv run` restores it"
    return (
        "restore it from git, or delete it and run `erv run`, which takes finished results from DVC's cache"
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    with whole_file(path, shared=True, durable=True) as temporary:
        temporary.write_bytes(content)
