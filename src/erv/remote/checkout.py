"""The worker's copy of a commit, in which one attempt at one stage runs.

A worker keeps one bare repository and one DVC cache in its home, and makes a checkout per attempt, so that
attempts can't see each other's files. The checkout is removed when the attempt ends. Several workers may
share a home: a lock that an attempt holds, and that the system frees if it is killed, says which ones live.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from erv.environment import Environment
from erv.errors import StackError
from erv.files import remove, write_text
from erv.pipeline import StageCancelledError
from erv.remote.commit import REF, CommitError, bundle_uri, git, patch_bytes, patch_id
from erv.remote.fetched import COMMITS, note_fetched
from erv.remote.request import Request
from erv.stack.dvc_remote import write_dvc_remote, write_private
from erv.storage.store import Store

_REPOSITORY, _CACHE, _CHECKOUTS, _SOURCES = "repository.git", "cache", "checkouts", "sources"
_RUNNING = "running"
# A worker that is paused would have all others wait for ever. One that fetches a bundle of gigabytes, or
# removes old files by the hundred thousand, may take longer, so nobody's stage fails for it at once.
_PATIENCE_SECONDS = 600.0
_END_SECONDS = 30.0


class HomeBusyError(StackError):
    """Another worker holds the home, and doesn't give it up."""


class Home:
    """The folder that a worker keeps between stages.

    Args:
        folder: its path; several workers of one machine may share it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def cache(self) -> Path:
        """DVC's cache of all checkouts."""
        return self.folder / _CACHE

    @property
    def checkouts(self) -> Path:
        """The folder of the checkouts."""
        return self.folder / _CHECKOUTS

    @property
    def sources(self) -> Path:
        """What was fetched of sources, by content."""
        return self.folder / _SOURCES

    @property
    def repository(self) -> Path:
        """The git repository of all commits that were fetched."""
        return self.folder / _REPOSITORY

    @contextlib.contextmanager
    def alone(self, patience: float | None = None) -> Iterator[None]:
        """While it is held, no attempt begins, and none ends.

        Args:
            patience: seconds to wait for others; longer than any of them should need by default.

        Raises:
            HomeBusyError: somebody holds it for longer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        seconds = _PATIENCE_SECONDS if patience is None else patience
        lock = FileLock(self.folder / "repository.lock")
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise HomeBusyError(
                f"{lock.lock_file}: another worker has held this home for {seconds / 60:g} min; unless it"
                " fetches a large commit or removes old files, it is paused or its disk hangs, so end it"
                f" (`fuser {lock.lock_file}` names it)"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def running(self) -> list[str]:
        """The attempts that live, by the names of their checkouts; hold `alone`."""
        return [path.stem for path in sorted((self.folder / _RUNNING).glob("*.lock")) if _is_held(path)]

    def sweep(self) -> None:
        """Removes the checkouts of attempts that were killed; hold `alone`.

        Those stay that MLflow could not be told all about.
        """
        for path in (self.folder / _RUNNING).glob("*.lock"):
            if not _is_held(path):
                if not _undelivered(folder := self.checkouts / path.stem):
                    remove(folder)
                path.unlink(missing_ok=True)

    def _begin(self, name: str) -> FileLock:
        """Marks an attempt as living, as long as the lock is held.

        Raises:
            StageCancelledError: it runs here already.
        """
        with self.alone():
            (self.folder / _RUNNING).mkdir(exist_ok=True)
            lock = FileLock(self.folder / _RUNNING / f"{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise StageCancelledError(f"it runs in {self.folder} already") from None
            self.sweep()
        return lock

    def fetch(self, store: Store, bucket: str, commit: str) -> Path:
        """Makes sure that the home's repository has a commit.

        Returns:
            The repository.

        Raises:
            CommitError: the bundle is damaged.
            StorageError: it can't be fetched.
        """
        repository = self.repository
        with self.alone():
            if not (repository / "HEAD").is_file():
                remove(repository)
                git(self.folder, "init", "--quiet", "--bare", str(repository))
                # Nothing that a checkout still borrows may be dropped.
                git(repository, "config", "gc.auto", "0")
            if _has(repository, commit):
                return repository
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                file = store.download(bundle_uri(bucket, commit), Path(folder) / "commit.bundle")
                git(repository, "fetch", "--quiet", "--no-tags", str(file), f"+{REF}:{COMMITS}/{commit}")
            note_fetched(repository, commit)
            if not _has(repository, commit):
                raise CommitError(f"{bundle_uri(bucket, commit)}: has another commit; delete that object")
        return repository

    @contextlib.contextmanager
    def checkout(self, store: Store, environment: Environment, request: Request, name: str) -> Iterator[Path]:
        """Yields a folder with the files of a request, ready for DVC, and removes it.

        It stays if MLflow could not be told all about a run in it: `leftovers` finds it.

        Args:
            store: of DVC's remote.
            environment: the worker's, with the buckets of the request.
            request: what to run.
            name: of the folder.
        """
        folder = self.checkouts / name
        lives = self._begin(name)
        try:
            remove(folder)
            self.checkouts.mkdir(exist_ok=True)
            repository = self.fetch(store, request.bucket, request.commit)
            git(self.folder, "clone", "--quiet", "--shared", "--no-checkout", str(repository), str(folder))
            git(folder, "checkout", "--quiet", "--detach", request.commit)
            if request.patch is not None:
                _apply(folder, request)
            for path, text in request.files.items():
                write_text(text, folder / path)
            self._set_up(environment, folder)
            yield folder
        finally:
            try:
                with self.alone(_END_SECONDS):
                    lives.release()
                    (self.folder / _RUNNING / f"{name}.lock").unlink(missing_ok=True)
                    if not _undelivered(folder):
                        remove(folder)
            except HomeBusyError:  # what the stage made counts all the same; the next attempt sweeps up
                lives.release()

    def leftovers(self) -> list[Path]:
        """The checkouts of attempts that have ended without telling MLflow all."""
        with self.alone():
            living = self.running()
        found = sorted(self.checkouts.glob("*"))
        return [path for path in found if path.name not in living and _undelivered(path)]

    def _set_up(self, environment: Environment, folder: Path) -> None:
        import dataclasses

        state = folder / ".erv"
        state.mkdir(mode=0o700, exist_ok=True)
        sources = self.sources
        sources.mkdir(exist_ok=True)
        if not (state / _SOURCES).exists():  # a cache by content, which all may share
            (state / _SOURCES).symlink_to(sources)
        write_private(folder / ".dvc" / "config.local", f"[cache]\n    dir = {self.cache}\n")
        write_dvc_remote(dataclasses.replace(environment, workspace=folder))


def _apply(folder: Path, request: Request) -> None:
    assert request.patch is not None
    if patch_id(request.patch) != request.patch_id:
        raise CommitError("the patch of the request isn't what its hash says; run again")
    git(folder, "apply", "--whitespace=nowarn", "--binary", "-", given=patch_bytes(request.patch))


def _has(repository: Path, commit: str) -> bool:
    try:
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except CommitError:
        return False
    return True


def _undelivered(folder: Path) -> bool:
    return any((folder / ".erv" / "spool").glob("*/run.json"))


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock; the system frees that of one that was killed."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
