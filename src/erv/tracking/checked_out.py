"""Whether a folder has the commit checked out that somebody asks for."""

from __future__ import annotations

from pathlib import Path

from erv.errors import StackError
from erv.parameters import PARAMETERS
from erv.tracking.origin import git, uncommitted

_SHOWN = 12  # digits of a commit


def require_commit(workspace: Path, ref: str) -> None:
    """Makes sure that the code here is that of a commit.

    Parameters may differ from it, because a run says which it had. So may what runs write.

    Args:
        workspace: the clone.
        ref: a commit, branch or tag.

    Raises:
        StackError: git knows no such commit, another one is checked out, or files differ from it.
    """
    wanted, found = _commit(workspace, ref), _commit(workspace, "HEAD")
    if wanted is None:
        raise StackError(
            f"git ref {ref!r}: {workspace} has no such commit, branch or tag; `git fetch` there may bring it"
        )
    if wanted != found:
        raise StackError(
            f"git ref {ref!r} is commit {wanted[:_SHOWN]}, but {workspace} has {(found or 'none')[:_SHOWN]}"
            f" checked out; `git checkout {ref}` there, or deploy from a clone that has it"
        )
    changed = uncommitted(workspace)
    if changed is None:
        raise StackError(
            f"git can't say whether {workspace} differs from {ref!r}; `git status` there says why"
        )
    if others := [path for path in changed if path != PARAMETERS]:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise StackError(
            f"git ref {ref!r}: {workspace} has it checked out, but with uncommitted changes in"
            f" {others[0]}{more}; commit them, or put them away with `git stash`"
        )


def _commit(workspace: Path, ref: str) -> str | None:
    found = git(workspace, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    return found.strip() if found else None
