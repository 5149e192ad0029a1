"""What a dependency holds now, and what it held when a stage read it.

DVC's cache has no code, so the old content is looked for in git: the commit whose files give the hash that
`dvc.lock` has. What was never committed can't be found.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from erv.pipeline import PipelineError

Files = Mapping[str, bytes]  # content by workspace path


class Contents:
    """Contents of the dependencies of one workspace, now and in the commits of its git repository.

    Args:
        root: the top of the workspace.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._md5s: dict[str, str] = {}  # of blobs
        self._found: dict[tuple[str, str], Files | None] = {}

    def now(self, path: str) -> Files:
        """The files of a dependency in the workspace, as DVC counts them; nothing if it is missing."""
        place = self._root / path
        if place.is_file():
            return {path: place.read_bytes()}
        fs, ignore = self._dvc if place.is_dir() else (None, None)
        names = sorted(map(Path, ignore.find(fs, str(place)))) if ignore else []
        return {name.relative_to(self._root).as_posix(): name.read_bytes() for name in names}

    def at(self, commit: str, path: str) -> Files:
        """The files of a dependency in a commit; nothing if it has none.

        Raises:
            PipelineError: git doesn't know the commit.
        """
        blobs = self._blobs(commit, path)
        contents = self._read(set(blobs.values()))
        return {name: contents[blob] for name, blob in blobs.items()}

    def when(self, path: str, md5: str) -> Files | None:
        """The files of a dependency when it had a hash; None if no commit holds them.

        Raises:
            PipelineError: there is no git repository here.
        """
        if (path, md5) not in self._found:
            self._found[path, md5] = self._search(path, md5)
        return self._found[path, md5]

    @cached_property
    def _dvc(self) -> tuple[Any, Any]:
        """DVC's file system, and its rules on which files it leaves out."""
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            with Repo(str(self._root)) as repo:
                return repo.fs, repo.dvcignore
        except NotDvcRepoError as error:
            raise PipelineError(f"{error}; run this from the top of the repository") from None

    def _search(self, path: str, md5: str) -> Files | None:
        for commit in self._commits(path):
            blobs = self._blobs(commit, path)
            contents = self._read(set(blobs.values()) - self._md5s.keys())
            self._md5s.update({blob: _md5(content) for blob, content in contents.items()})
            if _digest(path, {name: self._md5s[blob] for name, blob in blobs.items()}) == md5:
                contents = self._read(set(blobs.values()))
                return {name: contents[blob] for name, blob in blobs.items()}
        return None

    def _blobs(self, commit: str, path: str) -> dict[str, str]:
        """The blobs of a dependency in a commit by workspace path, without files that DVC leaves out."""
        _, ignore = self._dvc
        return {
            name: blob
            for name, blob in self._tree(commit, path)
            if not ignore.is_ignored_file(str(self._root / name))
        }

    def _commits(self, path: str) -> list[str]:
        """All commits that changed a path, on any branch, newest first."""
        return self._git("log", "--all", "--full-history", "--format=%H", "--", path).decode().split()

    def _tree(self, commit: str, path: str) -> Iterator[tuple[str, str]]:
        for line in self._git("ls-tree", "-r", "-z", commit, "--", path).split(b"\0"):
            about, _, name = line.partition(b"\t")
            if about.startswith(b"100"):  # a plain file
                yield name.decode(errors="surrogateescape"), about.split()[2].decode()

    def _read(self, blobs: set[str]) -> dict[str, bytes]:
        if not blobs:
            return {}
        names = sorted(blobs)
        answer = self._git("cat-file", "--batch", given="".join(f"{name}\n" for name in names).encode())
        found, at = {}, 0
        for name in names:
            head = answer.index(b"\n", at)
            size = int(answer[at:head].split()[2])
            found[name] = answer[head + 1 : head + 1 + size]
            at = head + 1 + size + 1
        return found

    def _git(self, *arguments: str, given: bytes = b"") -> bytes:
        try:
            result = subprocess.run(
                ["git", "-C", str(self._root), *arguments], input=given, capture_output=True, check=False
            )
        except OSError as error:
            raise PipelineError(f"git can't be started ({error.strerror}); install it") from None
        if result.returncode != 0:
            reason = " ".join(result.stderr.decode(errors="replace").split())
            raise PipelineError(f"git can't say what the code was ({reason}); commit it first")
        return result.stdout


def digest_of(path: str, files: Files) -> str | None:
    """DVC's hash of a dependency with these files; None if there are none."""
    return _digest(path, {name: _md5(content) for name, content in files.items()})


def _digest(path: str, md5s: Mapping[str, str]) -> str | None:
    """As `erv.files.content_digest`, from hashes by workspace path."""
    if path in md5s:
        return md5s[path]
    if not md5s:
        return None
    entries = [{"md5": md5s[name], "relpath": name.removeprefix(f"{path}/")} for name in md5s]
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True).encode("utf-8")
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
