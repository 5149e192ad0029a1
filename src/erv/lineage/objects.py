"""What a lock entry names by its hash: read from DVC's cache here or from its remote, and verified."""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property
from typing import TYPE_CHECKING

from erv.environment import Environment
from erv.errors import RegistryError

if TYPE_CHECKING:
    from erv.storage.store import Store


class Objects:
    """Small files that DVC tracks, each read once. Thread-safe.

    Args:
        environment: where the remote is; without an object store, only DVC's cache of this workspace is read.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._found: dict[str, bytes] = {}

    @cached_property
    def _store(self) -> Store:
        from erv.storage.store import open_store

        return open_store(self._environment)

    def uri(self, md5: str) -> str:
        """Where the remote keeps an object."""
        return object_uri(self._environment, md5)

    def read(self, md5: str) -> bytes:
        """The content of the object with this hash.

        Raises:
            RegistryError: it is nowhere, or the remote's copy has another content.
            StorageError: the remote can't be read.
        """
        with self._lock:
            if md5 not in self._found:
                self._found[md5] = self._read(md5)
            return self._found[md5]

    def _read(self, md5: str) -> bytes:
        cached = self._environment.workspace / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        if cached.is_file() and _is(content := cached.read_bytes(), md5):
            return content
        if not self._environment.has_storage:
            raise RegistryError(
                f"md5 {md5}: not in DVC's cache here, and no object store is configured; set ERV_S3_ENDPOINT,"
                " ERV_S3_ACCESS_KEY and ERV_S3_SECRET_KEY"
            )
        if not self._store.exists(self.uri(md5)):
            raise RegistryError(f"{self.uri(md5)}: missing; {push_remedy()}")
        content = self._store.read(self.uri(md5))
        if not _is(content, md5):
            raise RegistryError(f"{self.uri(md5)}: its content differs from its name; {replace_remedy()}")
        return content


def object_uri(environment: Environment, md5: str) -> str:
    """Where DVC's remote keeps an object."""
    return f"s3://{environment.dvc_bucket}/files/md5/{md5[:2]}/{md5[2:]}"


def push_remedy() -> str:
    """What to do about an object that the remote lacks."""
    return "run `dvc push` in a workspace that has it"


def replace_remedy() -> str:
    """What to do about an object whose content is wrong: DVC sends no object that is there."""
    return "delete that object, then run `dvc push` in a workspace that has it"


def _is(content: bytes, md5: str) -> bool:
    return hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(".dir")
