"""Content hashes in DVC's own terms, so that what MLflow shows is what `dvc.lock` holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from erv.errors import DataError


def md5_of_file(path: Path) -> str:
    """The MD5 of a file's bytes, 32 hexadecimal digits (an identity, not a protection)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def content_digest(path: str | Path) -> str:
    """DVC's hash of a file or a folder, at most 36 characters (MLflow's limit for a digest).

    A folder's hash is the MD5 of the JSON list of its files' hashes and relative paths, with `.dir` behind it
    (dvc_data.hashfile.tree.Tree.as_bytes, dvc-data 3.18).

    Raises:
        DataError: there is nothing at `path`.
    """
    path = Path(path)
    if path.is_file():
        return md5_of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: not found; run the stage that writes it first")
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    entries = [{"md5": md5_of_file(files[name]), "relpath": name} for name in sorted(files)]
    listing = json.dumps(entries, sort_keys=True).encode("utf-8")
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
