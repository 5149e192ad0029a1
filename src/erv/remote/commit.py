"""The commit that a stage runs at, as the coordinator sends it: whole, by its id, through the object store.

Workers need no access to a git server, so private commits that were never pushed run as well. Changes that
are in no commit are refused, or carried as a patch whose hash says which.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from erv.errors import DataError
from erv.remote.board import PREFIX
from erv.remote.request import SENT_APART
from erv.storage.store import Store
from erv.tracking.origin import uncommitted

REF = "refs/erv/sent"
# What a user may have set otherwise, and what a patch, or the files of a commit, would then look like.
_PLAIN = {
    "core.hooksPath": "/dev/null",
    "core.autocrlf": "false",
    "color.ui": "false",
    "diff.noprefix": "false",
    "diff.mnemonicPrefix": "false",
}
_SHOWN = 5
_PATCH = "latin-1"  # a patch has the bytes of the files, in whatever encoding; this one keeps all of them
# A commit that was sent longer ago is sent again: none is to be removed as old that somebody just asked for.
FRESH_SECONDS = 86_400.0


class CommitError(DataError):
    """What is checked out can't be sent as it is."""


def commit_of(workspace: Path) -> str:
    """The id of the commit that is checked out.

    Raises:
        CommitError: there is none, or this clone lacks a part of its history.
    """
    if git(workspace, "rev-parse", "--is-shallow-repository").strip() == b"true":
        raise CommitError(
            f"{workspace}: a shallow clone can't send its commit to a worker; run `git fetch --unshallow`"
        )
    return git(workspace, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()


def changes_to_carry(workspace: Path, *, carry: bool) -> str | None:
    """The uncommitted changes that a stage could see, as a patch; None if there are none.

    `dvc.lock` and `params.yaml` are not among them: they are sent apart.

    Args:
        workspace: root of the repository.
        carry: `machine.carry_changes`.

    Raises:
        CommitError: there are changes, and they are not to be carried.
    """
    changed = uncommitted(workspace)
    if changed is None:
        raise CommitError(f"{workspace}: git can't say what is uncommitted here; see `git status`")
    paths = [path for path in changed if path not in SENT_APART]
    if not paths:
        return None
    if not carry:
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        raise CommitError(
            f"uncommitted changes in {', '.join(paths[:_SHOWN])}{more}: a worker runs a commit; commit them,"
            " or set machine.carry_changes: true to send them as a patch that is recorded by its hash"
        )
    # In an index of its own, so that the user's stays as it is.
    with tempfile.TemporaryDirectory() as folder:
        variables = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(workspace, "read-tree", "HEAD", variables=variables)
        existing = [path for path in paths if (workspace / path).exists()]
        gone = [path for path in paths if not (workspace / path).exists()]
        if existing:
            git(workspace, "--literal-pathspecs", "add", "--all", "--", *existing, variables=variables)
        if gone:
            quiet = ("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", "--")
            git(workspace, "--literal-pathspecs", *quiet, *gone, variables=variables)
        plain = ("--binary", "--full-index", "--no-ext-diff", "--no-textconv")
        patch = git(workspace, "diff", "--cached", *plain, "HEAD", variables=variables)
    return patch.decode(_PATCH) if patch else None


def patch_bytes(patch: str) -> bytes:
    """The patch as git writes and reads it."""
    return patch.encode(_PATCH)


def patch_id(patch: str) -> str:
    """The hash by which a patch is recorded: of its bytes, 64 hexadecimal digits."""
    return hashlib.sha256(patch_bytes(patch)).hexdigest()


def send_commit(store: Store, bucket: str, workspace: Path, commit: str, say: Callable[[str], None]) -> None:
    """Stores a commit with its history as a git bundle, unless it has been there for less than a day.

    Args:
        store: where to.
        bucket: of DVC's remote.
        workspace: the clone.
        commit: its hash.
        say: takes a sentence before it is sent, which may take a while for a long history.

    Raises:
        CommitError: git can't make the bundle.
        StorageError: it can't be stored.
    """
    uri = bundle_uri(bucket, commit)
    age = store.age(uri)
    if age is not None and age < FRESH_SECONDS:
        return
    say(f"sends commit {commit[:12]}, with its history")
    with tempfile.TemporaryDirectory() as folder:
        # A bundle needs a name to offer. It gets one in a repository that borrows our objects.
        lender = Path(folder) / "lender"
        git(workspace, "clone", "--quiet", "--bare", "--shared", "--no-tags", str(workspace), str(lender))
        git(lender, "update-ref", REF, commit)
        file = Path(folder) / "commit.bundle"
        git(lender, "bundle", "create", "--quiet", str(file), REF)
        store.upload(file, uri)


def bundle_uri(bucket: str, commit: str) -> str:
    """Where a commit is."""
    return f"s3://{bucket}/{PREFIX}/commits/{commit}.bundle"


def git(
    folder: Path, *arguments: str, variables: Mapping[str, str] | None = None, given: bytes = b""
) -> bytes:
    """What git prints; settings of the user that change its behaviour don't count.

    Raises:
        CommitError: it fails, or isn't there.
    """
    ours = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        result = subprocess.run(
            ["git", *_settings(), "-C", str(folder), *arguments],
            input=given,
            capture_output=True,
            check=False,
            env={**inherited, **ours, **(variables or {})},
        )
    except OSError as error:
        raise CommitError(f"git can't be started ({error.strerror}); install it") from error
    if result.returncode != 0:
        said = " ".join(result.stderr.decode(errors="replace").split())
        raise CommitError(f"{folder}: `git {arguments[0]}` failed: {said[-300:]}")
    return result.stdout


def _settings() -> list[str]:
    return [word for name, value in _PLAIN.items() for word in ("-c", f"{name}={value}")]
