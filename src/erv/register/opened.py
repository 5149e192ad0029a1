"""What answers in this workspace's code: a version that was fetched, or a bundle in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from erv.errors import RegistryError
from erv.files import sha256_of
from erv.register.fetched import FetchedVersion
from erv.register.serving_code import serving_code


@dataclass(frozen=True)
class Opened:
    """A bundle that is asked.

    Attributes:
        name: of the registered model, or of the folder.
        number: of the version; empty for a bundle in a folder.
        digest: the hash of the bundle.
        folder: of the bundle.
        notice: what to know of its answers, for people; None if there is nothing.
    """

    name: str
    number: str
    digest: str
    folder: Path
    notice: str | None = None

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.name} version {self.number}" if self.number else self.name


def opened_version(version: FetchedVersion) -> Opened:
    """A version of the registry.

    The code that is stored with it doesn't stream, so that of this erv answers. Where what both share
    differs, the notice says so.
    """
    notice = None
    if serving_code(version.bundle) != version.lineage.get("serving_code"):
        notice = (
            f"{version.title} was registered with other code than this erv's, which answers here; `erv"
            " predict` asks it with its own"
        )
    return Opened(version.name, version.number, version.bundle_hash, version.bundle, notice)


def opened_folder(folder: Path) -> Opened:
    """A bundle in a folder, such as `models/candidate`.

    Raises:
        RegistryError: it is no bundle.
    """
    path = folder / "serving.json"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RegistryError(
            f"{folder} is no bundle: it has no serving.json that can be read; name the folder that `dvc repro"
            " register` wrote"
        ) from None
    folder = folder.resolve()
    return Opened(folder.name, "", sha256_of(folder), folder)
