"""What somebody gave a run beside its stages: a commit that must be checked out, a profile, overrides.

A workspace has one set of parameters: overrides are written into `params.yaml` and stay there, as `dvc exp
run -S` does. So `dvc.lock` and `params.yaml` say the same afterwards, `git diff` shows what was overridden,
and the next run goes on from it. If the run ends before its stages begin, the file is put back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect.logging import get_run_logger

from erv.environment import Environment
from erv.errors import SettingsError
from erv.files import whole_file, write_text
from erv.parameters import PARAMETERS, Change, as_texts, changes, parse, read
from erv.settings.overrides import overridden
from erv.tracking.checked_out import require_commit
from erv.tracking.origin import git

REF_TAG, PROFILE_TAG, OVERRIDES_TAG = "erv.ref", "erv.profile", "erv.overrides"
_SHOWN = 5
_BACK = "`git checkout params.yaml dvc.lock`, then `dvc checkout`, goes back to the commit"


@dataclass(frozen=True)
class Given:
    """The parameters of the flow that are about the workspace; see `flows.train.train`."""

    profile: str | None = None
    overrides: Sequence[str] = ()
    ref: str | None = None

    def tags(self) -> dict[str, str]:
        """What the MLflow run says of them."""
        tags = {
            REF_TAG: self.ref or "",
            PROFILE_TAG: self.profile or "",
            OVERRIDES_TAG: " ".join(self.overrides),
        }
        return {name: text for name, text in tags.items() if text}

    @property
    def changes_parameters(self) -> bool:
        """Whether there is anything to write into `params.yaml`."""
        return self.profile is not None or bool(self.overrides)


@dataclass
class Applied:
    """Parameters that were written, until stages begin.

    Attributes:
        tags: for the MLflow run.
        kept: whether stages began.
    """

    tags: dict[str, str] = field(default_factory=dict)
    kept: bool = False

    def keep(self) -> None:
        """Stages begin: from now on `dvc.lock` goes with these parameters."""
        self.kept = True


@contextmanager
def applied(environment: Environment, given: Given) -> Iterator[Applied]:
    """Checks the commit, and has the parameters of a run in `params.yaml`; hold the workspace's lock.

    Raises:
        StackError: another commit is checked out.
        SettingsError: an override or the profile is wrong; nothing was changed.
    """
    if given.ref is not None:
        require_commit(environment.workspace, given.ref)
    path = environment.workspace / PARAMETERS
    before = read(environment.workspace)
    state = Applied(given.tags())
    if given.changes_parameters:
        wanted = overridden(path, given.profile, given.overrides)
        for change in wanted.changes:
            get_run_logger().info("%s", f"{PARAMETERS}: {environment.mask(change.text())}")
        if wanted.changes:
            write_text(wanted.content, path)
    try:
        _tell_differences(environment)
        yield state
    finally:
        if not state.kept and path.read_bytes() != before:
            with whole_file(path) as work:
                work.write_bytes(before)
            get_run_logger().info("no stage began, so %s is as before", PARAMETERS)


def _tell_differences(environment: Environment) -> None:
    """Says which parameters aren't those of the commit, whoever changed them."""
    differing = _since_commit(environment.workspace)
    if differing:
        said = "; ".join(environment.mask(change.text()) for change in differing[:_SHOWN])
        more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        get_run_logger().info("%s differs from its commit: %s%s. %s", PARAMETERS, said, more, _BACK)


def _since_commit(workspace: Path) -> list[Change]:
    committed = git(workspace, "show", f"HEAD:./{PARAMETERS}")
    if committed is None:  # no repository, or the file is in no commit
        return []
    try:
        return changes(as_texts(parse(committed.encode())), as_texts(parse(read(workspace))))
    except SettingsError:  # of the commit; those of the workspace are told by the checks
        return []
