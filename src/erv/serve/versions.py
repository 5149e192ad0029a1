"""Which version is served: one of the registry, which an alias may move, or a bundle in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from erv.environment import Environment
from erv.errors import RegistryError
from erv.files import sha256_of

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
    """

    name: str
    number: str
    digest: str
    created: int
    bundle: Path

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
        fetched = fetch_version(found, self._environment)
        created = int(found.creation_timestamp or 0) // 1000
        return Version(fetched.name, fetched.number, fetched.bundle_hash, created, fetched.bundle)


class FolderSource:
    """A bundle in a folder, such as `models/candidate`; always the same one.

    Args:
        folder: that `register` wrote.

    Raises:
        RegistryError: it is no bundle.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "serving.json"
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RegistryError(
                f"{folder} is no bundle: it has no serving.json that can be read; name the folder that `dvc"
                " repro register` wrote"
            ) from None
        self._folder = folder.resolve()

    def newest(self) -> str:
        """Its path."""
        return str(self._folder)

    def fetch(self) -> Version:
        """The bundle as it is; its hash is that of its files."""
        return Version(self._folder.name, "", sha256_of(self._folder), 0, self._folder)
