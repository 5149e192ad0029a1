"""Which version is served: one of the registry, which an alias may move, or a bundle in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from erv.environment import Environment
from erv.register.opened import Opened, opened_folder, opened_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Version:
    """What answers.

    Attributes:
        name: of the registered model, or of the bundle's folder.
        number: of the version; empty for a bundle in a folder.
        digest: the hash of the bundle.
        created: when the version was registered, in seconds since 1970; 0 for a bundle in a folder.
        bundle: the folder.
        notice: what the operator is to know of its answers; None if there is nothing.
    """

    name: str
    number: str
    digest: str
    created: int
    bundle: Path
    notice: str | None = None

    @property
    def id(self) -> str:
        """Its name for clients: `emotion-policy/3`."""
        return f"{self.name}/{self.number}" if self.number else self.name

    @property
    def ids(self) -> tuple[str, ...]:
        """The names by which clients may ask for it; by that of the model they get whatever is served."""
        return tuple(dict.fromkeys((self.name, self.id)))

    def as_dict(self) -> dict[str, str]:
        """What answers say of it."""
        return {"id": self.id, "name": self.name, "version": self.number, "bundle": self.digest}


class Source(Protocol):
    """Where versions come from."""

    def newest(self) -> str:
        """Names the version that is to be served now; cheap. Raises ErvError if that can't be told."""

    def fetch(self) -> Version:
        """Brings it onto this machine. Raises ErvError if that can't be done."""


class RegistrySource:
    """A version of MLflow's registry.

    Args:
        resolve: finds it; another one later, if the target is an alias.
        environment: where MLflow is.
    """

    def __init__(self, resolve: Callable[[], ModelVersion], environment: Environment) -> None:
        self._resolve, self._environment = resolve, environment

    def newest(self) -> str:
        """The name, the number and the digest of the version's record."""
        from erv.register.record import RECORD_TAG

        found = self._resolve()
        return f"{found.name}/{found.version} {found.tags.get(RECORD_TAG, '')}"

    def fetch(self) -> Version:
        """Downloads it to `.erv/versions` and compares every file with its record.

        Raises:
            RegistryError: as `erv.register.fetched.fetch_version`.
        """
        from erv.register.fetched import fetch_version

        found = self._resolve()
        opened = opened_version(fetch_version(found, self._environment))
        return _version(opened, int(found.creation_timestamp or 0) // 1000)


class FolderSource:
    """A bundle in a folder, such as `models/candidate`; always the same one.

    Args:
        folder: that `register` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def newest(self) -> str:
        """Its path."""
        return str(self._folder)

    def fetch(self) -> Version:
        """The bundle as it is.

        Raises:
            RegistryError: it is no bundle.
        """
        return _version(opened_folder(self._folder), 0)


def _version(opened: Opened, created: int) -> Version:
    return Version(opened.name, opened.number, opened.digest, created, opened.folder, opened.notice)
