"""What the commit that is checked out has of a folder, by its content alone.

Git's index and its rules of what to ignore can hide a change, so neither is asked.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from erv.errors import RegistryError

_SECONDS = 60
_LONGEST = 200  # characters of what git said


class GitError(RegistryError):
    """Git can't say; the text says why."""


@dataclass(frozen=True)
class Head:
    """The commit that is checked out.

    Attributes:
        folder: at or below the root of the repository.
        commit: its hash.
        blobs: hash of the content by path, relative to the folder.
    """

    folder: Path
    commit: str
    blobs: Mapping[str, str]

    def has(self, path: str) -> bool:
        """Whether it has a file with the bytes that it has in the folder now."""
        return path in self.blobs and self.blobs[path] == _blob(
            (self.folder / path).read_bytes(), self.blobs[path]
        )

    def read(self, path: str) -> bytes | None:
        """The content of a file in the commit; None if it has none of this path.

        Raises:
            GitError: git can't say.
        """
        return None if path not in self.blobs else _git(self.folder, "cat-file", "blob", self.blobs[path])


def read_head(folder: Path) -> Head:
    """The commit that is checked out in a folder.

    Raises:
        GitError: git can't say, as where there is no repository or no commit.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    listed = _git(folder, "ls-tree", "-r", "-z", commit).decode("utf-8", "surrogateescape")
    blobs = {}
    for line in filter(None, listed.split("\0")):
        about, _, path = line.partition("\t")
        blobs[path] = about.split()[2]
    return Head(folder, commit, blobs)


def _blob(content: bytes, like: str) -> str:
    """Git's hash of a content, of the kind of another: SHA-1, or SHA-256 in a repository that has those."""
    text = b"blob %d\0" % len(content) + content
    return hashlib.sha1(text, usedforsecurity=False).hexdigest() if len(like) == 40 else _sha256(text)


def _sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _git(folder: Path, *arguments: str) -> bytes:
    """What git says, of objects as they are and not of those that replace them.

    Raises:
        GitError: it fails, doesn't end or isn't there.
    """
    what = f"git {arguments[0]}"
    try:
        done = subprocess.run(
            ["git", "--no-replace-objects", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise GitError(f"`{what}` didn't end within {_SECONDS} s") from None
    except OSError as error:
        raise GitError(f"`{what}` can't be run: {error.strerror or error}") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:_LONGEST]
        raise GitError(f"`{what}` failed: {said or f'exit code {done.returncode}'}")
    return done.stdout
