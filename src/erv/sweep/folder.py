"""The folder of a sweep, `.erv/sweeps/NAME`, and the checkouts in which its trials run.

It keeps what the clone was when the sweep began: the commit, changes that no commit has, `params.yaml` and
`dvc.lock`. So the clone is free for other work meanwhile, and every trial sees the same. A checkout borrows
the clone's git objects and DVC's cache, in which its results stay when it is removed.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from erv.environment import Environment, child_environment
from erv.errors import SettingsError, StackError
from erv.files import remove, sha256_of_file, sha256_of_text, write_text
from erv.parameters import PARAMETERS
from erv.pipeline.lock_file import NAME as LOCK
from erv.remote.commit import git, patch_bytes
from erv.settings.overrides import overridden
from erv.stack.dvc_remote import update_config, write_dvc_remote, write_private
from erv.sweep import holder
from erv.sweep.beside import SOURCES, link_sources, overrides_beside
from erv.sweep.graph import Graph
from erv.sweep.plan import Plan, check_name, read_plan
from erv.tracking.origin import git as ask_git

SWEEPS = "sweeps"
_BEGUN, _PATCH, _TRIALS, _LOGS = "begun", "changes.patch", "trials", "logs"
_READY = Path(".erv") / "ready"  # in a checkout that is whole
# Shards are large: a trial needs links, not copies. DVC keeps linked files from being written to.
_LINKS = "reflink,hardlink,copy"


class Folder:
    """The folder of one sweep.

    Args:
        environment: of the clone.
        name: of the sweep.
    """

    def __init__(self, environment: Environment, name: str) -> None:
        check_name(name)
        self._environment, self.name = environment, name
        self.path = environment.state / SWEEPS / name

    @property
    def begun(self) -> Path:
        """What is kept of the clone as it was when the sweep began."""
        return self.path / _BEGUN

    @property
    def parameters(self) -> Path:
        """The `params.yaml` of the beginning."""
        return self.begun / PARAMETERS

    def log(self, number: int) -> Path:
        """Where the output of a trial goes."""
        return self.path / _LOGS / f"trial-{number}.log"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the sweep; the kernel frees it when the holder dies, whatever the way.

        Raises:
            StackError: it runs already.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self.path / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise StackError(
                f"sweep {self.name!r} runs already in {self._environment.workspace}; wait for it, cancel it,"
                " or give this one another name"
            ) from None
        try:
            with holder.held(self.path):
                yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether a process works on the sweep now. Takes no lock: a sweep that begins would be refused."""
        return holder.is_held(self.path)

    def begin(self, plan: Plan, patch: str | None, graph: Graph) -> None:
        """Keeps what the clone is now; the plan comes last, so that a sweep has begun with all or nothing."""
        workspace, begun = self._environment.workspace, self.path / _BEGUN
        remove(begun)
        begun.mkdir(parents=True)
        for name in (PARAMETERS, LOCK):
            if (workspace / name).is_file():
                shutil.copyfile(workspace / name, begun / name)
        if patch is not None:
            (begun / _PATCH).write_bytes(patch_bytes(patch))
        if (workspace / SOURCES).is_dir():
            shutil.copytree(workspace / SOURCES, begun / SOURCES)
        graph.save(begun)
        plan.save(self.path)

    def checkout(self, plan: Plan, key: Sequence[str], overrides: Sequence[str]) -> Path:
        """A checkout with these overrides, made unless an interrupted trial has left one with checkpoints.

        Args:
            plan: of the sweep.
            key: what tells it from others, the values of the trial.
            overrides: for its `params.yaml`.

        Raises:
            SettingsError: the parameters don't fit together, or the uncommitted changes that the sweep keeps
                are damaged.
            DataError: a lock file of a source is malformed.
            CommitError: git fails.
        """
        more = overrides_beside(self._environment.workspace, self.parameters, overrides)
        content = overridden(self.parameters, None, [*overrides, *more]).content
        folder = self.path / _TRIALS / sha256_of_text("\n".join(key))[:16]
        if not (folder / _READY).is_file():
            remove(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._clone(plan, folder)
            write_text("", folder / _READY)
        write_text(content, folder / PARAMETERS)
        return folder

    def discard(self, folder: Path) -> bool:
        """Removes a checkout; returns False if it has to stay because MLflow could not be told all."""
        if any((folder / ".erv" / "spool").glob("*/run.json")):
            return False
        # First, or a removal that is cut short would leave half a checkout that says it is whole.
        (folder / _READY).unlink(missing_ok=True)
        remove(folder)
        return True

    def environment_of(self, folder: Path) -> Environment:
        """The servers of the clone, for a checkout."""
        return dataclasses.replace(self._environment, workspace=folder)

    def variables_of(self, folder: Path, **more: str) -> dict[str, str]:
        """The variables for a process in a checkout: our servers, and its own code alone."""
        here = self.environment_of(folder)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}
        inherited.pop("ERV_FLOW_RUN_ID", None)
        variables = child_environment(here, inherited) | here.variables()
        variables["PYTHONPATH"] = os.pathsep.join([str(folder / "src"), str(folder)])
        return variables | more

    def _clone(self, plan: Plan, folder: Path) -> None:
        workspace, begun = self._environment.workspace, self.path / _BEGUN
        git(self.path, "clone", "--quiet", "--shared", "--no-checkout", str(workspace), str(folder))
        git(folder, "checkout", "--quiet", "--detach", plan.commit)
        if plan.patch:
            patch = begun / _PATCH
            # Otherwise trials would train on other files.
            if not patch.is_file() or sha256_of_file(patch) != plan.patch:
                raise SettingsError(
                    f"{patch}: not the uncommitted changes with which the sweep began; give the sweep another"
                    f" name, or delete {self.path}"
                )
            git(folder, "apply", "--whitespace=nowarn", "--binary", "-", given=patch.read_bytes())
        for name in ("user.name", "user.email"):  # by which runs say whose they are
            if found := (ask_git(workspace, "config", name) or "").strip():
                git(folder, "config", name, found)
        if (begun / LOCK).is_file():
            shutil.copyfile(begun / LOCK, folder / LOCK)
        if (begun / SOURCES).is_dir():
            shutil.copytree(begun / SOURCES, folder / SOURCES, dirs_exist_ok=True)
        state = folder / ".erv"
        state.mkdir(mode=0o700, exist_ok=True)
        (state / "stack" / "prefect").mkdir(parents=True)
        sources = self._environment.state / "sources"  # a cache by content, which all may share
        sources.mkdir(exist_ok=True)
        (state / "sources").symlink_to(sources)
        local = workspace / ".dvc" / "config.local"
        write_private(
            folder / ".dvc" / "config.local", local.read_text(encoding="utf-8") if local.is_file() else ""
        )
        link_sources(workspace, folder)
        self._share_cache(folder)
        write_dvc_remote(self.environment_of(folder))

    def _share_cache(self, folder: Path) -> None:
        from dvc.repo import Repo

        with Repo(str(self._environment.workspace)) as repo:
            cache = repo.cache.local_cache_dir  # not that of its objects, which lies below
        update_config(folder / ".dvc" / "config.local", {"dir": str(cache), "type": _LINKS}, "cache")


def sweeps(environment: Environment) -> list[str]:
    """The names of the sweeps of a clone."""
    return sorted(path.parent.name for path in (environment.state / SWEEPS).glob("*/plan.json"))


def begun(environment: Environment, name: str) -> tuple[Folder, Plan]:
    """A sweep that was begun.

    Raises:
        SettingsError: there is none of this name.
    """
    folder = Folder(environment, name)
    plan = read_plan(folder.path)
    if plan is None:
        known = ", ".join(sweeps(environment))
        raise SettingsError(
            f"there is no sweep {name!r} in this clone{f'; expected {known}' if known else ''}"
        )
    return folder, plan
