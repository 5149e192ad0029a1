"""Files that are complete or not there, and the JSON documents that one stage writes and others read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from erv.errors import DataError


def write_text(text: str, path: Path) -> None:
    """Writes a text file under a temporary name, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


def write_document(document: Mapping[str, Any], path: Path) -> None:
    """Writes a document as JSON, its keys in their order."""
    write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", path)


def read_document(path: Path, stage: str) -> dict[str, Any]:
    """Reads a document.

    Args:
        path: of it.
        stage: that writes it, for messages.

    Raises:
        DataError: it is not there, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro {stage}` first") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); run `dvc repro {stage}` again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not what {stage} writes; run `dvc repro {stage}` again")
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, or of the names and contents of all files below a folder.

    Raises:
        DataError: there is nothing at `path`.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if not path.is_dir():
        raise DataError(f"{path}: not found; run the stage that writes it first")
    digest = hashlib.sha256()
    files = (item for item in path.rglob("*") if item.is_file() and "__pycache__" not in item.parts)
    for file in sorted(files):
        digest.update(f"{file.relative_to(path).as_posix()}={sha256_of(file)}\n".encode())
    return digest.hexdigest()
