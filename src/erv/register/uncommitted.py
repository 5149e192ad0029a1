"""Whether the code that answers for a bundle is in a commit, where people can read what a model executes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from erv.register.gates import FAIL, SERVING_CODE, Verdict
from erv.register.serving_code import serving_files
from erv.syntax import what_runs
from erv.tracking.origin import git

_NAMED = 3


def verdicts_on_code(bundle: Path, workspace: Path, kept: Sequence[Verdict] | None) -> tuple[Verdict, ...]:
    """A verdict that keeps a version from becoming champion, if its code is in no commit; else nothing.

    Args:
        bundle: its folder.
        workspace: the repository that is published from.
        kept: the verdicts of an earlier publication, None if there was none. The code of a version never
            changes: what was committed then needs no other look.
    """
    if kept is not None and not any(verdict.metric == SERVING_CODE for verdict in kept):
        return ()
    if not (changed := uncommitted(bundle, workspace)):
        return ()
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    reason = (
        f"{', '.join(changed[:_NAMED])}{more} can't be found in the commit that is checked out; commit, and"
        " `erv publish` decides again"
    )
    return (Verdict(SERVING_CODE, outcome=FAIL, reason=reason),)


def uncommitted(bundle: Path, workspace: Path) -> list[str]:
    """The files of code or data that answer for a bundle and run otherwise than git's HEAD has them.

    Comments, docstrings and formatting don't count. Where the package is no part of the workspace, or git
    can't say, there are none.

    Args:
        bundle: its folder.
        workspace: the repository; paths are relative to it.
    """
    root = workspace.resolve()
    files = [path.resolve() for path in serving_files(bundle)]
    paths = sorted(path.relative_to(root).as_posix() for path in files if path.is_relative_to(root))
    if not paths:
        return []
    changed = git(root, "diff", "--name-only", "--relative", "-z", "HEAD", "--", *paths) or ""
    new = git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths) or ""
    found = [path for path in changed.split("\0") if path and _runs_otherwise(root, path)]
    return sorted([*found, *filter(None, new.split("\0"))])


def _runs_otherwise(root: Path, path: str) -> bool:
    """Whether a file does something else than in git's HEAD."""
    committed = git(root, "show", f"HEAD:./{path}")
    if committed is None or not path.endswith(".py"):
        return True
    return what_runs(committed.encode("utf-8")) != what_runs((root / path).read_bytes())
