"""Whether the code that answers for a bundle is in a commit, where people can read what a model executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from erv.register import imports
from erv.register.head import GitError, Head, read_head
from erv.register.serving_code import is_data, serving_files
from erv.register.verdict import CANT_TELL, FAIL, SERVING_CODE, Verdict
from erv.syntax import what_runs

_NAMED = 3


@dataclass(frozen=True)
class Committed:
    """Where the code that answers for a bundle can be read.

    Attributes:
        commit: the one that has all of it; None if none was found.
        changed: the files that run otherwise than the commit that is checked out has them, or aren't there.
        unknown: why git can't say; empty if it can.
    """

    commit: str | None = None
    changed: tuple[str, ...] = ()
    unknown: str = ""

    def verdicts(self, known: str | None) -> tuple[Verdict, ...]:
        """A verdict that keeps a version from becoming champion, if its code is in no commit; else nothing.

        Args:
            known: a commit in which an earlier publication found it, or None. The code of a version never
                changes, so it needs no other look then.
        """
        if known is not None:
            return ()
        if self.unknown:
            reason = f"{self.unknown}; put that right, and `erv publish` decides again"
            return (Verdict(SERVING_CODE, outcome=CANT_TELL, reason=reason),)
        if not self.changed:
            return ()
        more = f" and {len(self.changed) - _NAMED} more" if len(self.changed) > _NAMED else ""
        reason = (
            f"{', '.join(self.changed[:_NAMED])}{more} can't be found in the commit that is checked out;"
            " commit, and `erv publish` decides again"
        )
        return (Verdict(SERVING_CODE, outcome=FAIL, reason=reason),)


def committed_code(bundle: Path, workspace: Path) -> Committed:
    """Compares the code and data that answer for a bundle with the commit that is checked out.

    Their content decides, whatever git ignores or was told not to look at. Comments, docstrings and
    formatting don't count. Where the package is no part of the workspace, nothing is compared.

    Args:
        bundle: its folder.
        workspace: the repository; paths are relative to it.
    """
    root, package = workspace.resolve(), imports.PACKAGE.resolve()
    if not package.is_relative_to(root):
        return Committed()
    # A module that is a link counts by its own name: what it leads to may be in no commit.
    here = package.relative_to(root)
    paths = sorted((here / path.relative_to(imports.PACKAGE)).as_posix() for path in serving_files(bundle))
    try:
        head = read_head(root)
        changed = [path for path in paths if not head.has(path) and _runs_otherwise(head, path)]
    except GitError as error:
        return Committed(unknown=str(error))
    changed = sorted([*changed, *_lost_data(head, here, paths)])
    return Committed(commit=None if changed else head.commit, changed=tuple(changed))


def _lost_data(head: Head, package: Path, paths: Sequence[str]) -> list[str]:
    """The files of data that the commit has beside the modules which answer, and the folder lacks."""
    folders = {PurePosixPath(path).parent for path in paths if path.endswith(".py")} - {
        PurePosixPath(package)
    }
    committed = [PurePosixPath(path) for path in head.blobs]
    return [
        str(path)
        for path in committed
        if not folders.isdisjoint(path.parents) and not (head.folder / path).exists()
        if is_data(path.relative_to(package))
    ]


def _runs_otherwise(head: Head, path: str) -> bool:
    """Whether a file does something else than in the commit, or isn't in it."""
    committed = head.read(path)
    if committed is None or not path.endswith(".py"):
        return True
    try:
        before = what_runs(committed)
    except (SyntaxError, ValueError):  # what is no Python runs otherwise than what is
        return True
    return before != what_runs((head.folder / path).read_bytes())
