"""What DVC restored is what `dvc.lock` names.

DVC trusts the objects in its cache, which are write-protected, and hashes those of a remote only where the
remote says `verify`. So the outputs of a restored stage are hashed here, and objects of the cache that are
not what their names say are removed. DVC then fetches them again, or runs the stage.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.files import content_digest, md5_of_file, remove


def damaged_outputs(entry: Mapping[str, Any], workspace: str | Path = ".") -> list[str]:
    """The outputs of a lock entry whose content in the workspace is not what the entry says.

    Args:
        entry: of `dvc.lock`.
        workspace: the top of the repository.

    Returns:
        Their paths as in the entry. Outputs outside the workspace and hashes of other kinds are not checked.
    """
    return [path for path, md5 in _outputs(entry) if not _holds(Path(workspace) / path, md5)]


def remove_outputs(entry: Mapping[str, Any], paths: Collection[str], workspace: str | Path = ".") -> None:
    """Removes outputs of a lock entry from the workspace, and its damaged objects from DVC's cache."""
    remove_damaged_objects(entry, workspace)
    for path in paths:
        remove(Path(workspace) / path)


def remove_damaged_objects(entry: Mapping[str, Any], workspace: str | Path = ".") -> list[Path]:
    """Removes objects of a lock entry from DVC's cache whose content is not what their names say.

    Returns:
        Their paths.
    """
    cache = _cache(Path(workspace))
    damaged = [item for _path, md5 in _outputs(entry) for item in _damaged_objects(cache, md5)]
    for item in damaged:
        item.unlink(missing_ok=True)
    return damaged


def _outputs(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for out in entry.get("outs") or []:
        # Without `hash`, an entry is of DVC 2, which hashed texts differently.
        if out.get("hash") == "md5" and out.get("md5"):
            yield out["path"], out["md5"]


def _holds(path: Path, md5: str) -> bool:
    try:
        return content_digest(path) == md5
    except (DataError, OSError):
        return False


def _cache(root: Path) -> Path:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Path(str(repo.cache.local.path))


def _damaged_objects(cache: Path, md5: str) -> Iterator[Path]:
    path = cache / md5[:2] / md5[2:]
    if not path.is_file():
        return
    if md5_of_file(path) != md5.removesuffix(".dir"):
        yield path
        return
    if md5.endswith(".dir"):
        for item in json.loads(path.read_bytes()):
            yield from _damaged_objects(cache, item["md5"])
