"""Which clips a served model reads: those that a request brings, and those below what the operator names.

A client names a clip by its path below a folder, or by a URI. Its answer never says where the folder is, nor
whether there is such a file outside.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from erv.errors import DataError, RegistryError, StorageError
from erv.files import followed

logger = logging.getLogger(__name__)

ROOT_VARIABLE = "ERV_SERVE_ROOT"
INPUTS = ("clip", "content", "dataset", "subtitle")  # fields of a request, in the order of `ClipInput`
MAX_CLIPS = 64  # in a request; they are in memory together
CLIP_MEMORY_MB = 2000  # what decoding a clip may take
MAX_FETCHED_MB = 256  # of a clip that comes from S3; all of a request are on disk together
LONGEST_NAME = 1024
_S3 = "s3://"
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://|data:[^,]*,")
_DATA_URI = re.compile(r"data:[^,]*,", re.IGNORECASE)
_NAME = "send the file in the field content, or name it by its path, a file:// or an s3:// URI"
_SEND = "the field clip holds paths and URIs of files; send the file itself in the field content"


class ClipError(DataError):
    """A clip can't be answered. The message is for the client, and holds no path of this machine."""


@dataclass(frozen=True)
class ClipInput:
    """A row of a request; at least a name or content.

    Attributes:
        name: path below the served folder, `file://` or `s3://` URI; if there is content, any name.
        content: the file itself, as bytes, as base64 text, or as a `data:` URI in base64.
        dataset: the data set that the clip is like, by name; see `erv.answering.question`.
        subtitle: what is said in the clip.
    """

    name: Any = None
    content: Any = None
    dataset: Any = None
    subtitle: Any = None


class Downloads(Protocol):
    """The part of `erv.storage.store.Store` that is needed here."""

    def download(self, uri: str, path: Path, /, *, on_bytes: Any = None) -> Path:
        """Copies an object to a file; `on_bytes` gets the size of each chunk and may raise to stop."""


@dataclass(frozen=True)
class ServedClips:
    """Where clips may be read.

    Attributes:
        folder: the folder, resolved; None if there is none.
        prefix: `s3://bucket/prefix`, without a slash at its end; None if there is none.
        store: has `prefix`.
        named: the folder as the operator named it, absolute, which may lead to `folder` through links.
    """

    folder: Path | None = None
    prefix: str | None = None
    store: Downloads | None = None
    named: Path | None = None

    def file_of(self, asked: ClipInput, number: int, temporary: Path) -> Path:
        """The file of a clip, written to a temporary folder unless it is below the served one.

        Args:
            asked: the row of the request.
            number: of the row.
            temporary: folder for the files of this request.

        Raises:
            ClipError: it is not a file that may be read. Symbolic links count as what they lead to.
        """
        target = temporary / f"{number:02d}"
        if asked.content is not None:
            target.write_bytes(_bytes_of(asked.content))
            return target
        name = asked.name
        if not isinstance(name, str) or not name:
            raise ClipError(
                "neither name nor content; the field clip holds paths below the served folder or URIs, the"
                " field content files in base64"
            )
        if (scheme := _SCHEME.match(name)) and scheme["scheme"] not in ("s3", "file"):
            raise ClipError(
                _SEND if scheme["scheme"] is None else f"clips are not read from {scheme[0]}; {_NAME}"
            )
        if self.folder is None and self.prefix is None:
            raise ClipError(
                f"this server reads no clips: {ROOT_VARIABLE}, the folder of the clips, is not set"
            )
        if name.startswith(_S3):
            return self._fetched(name, target)
        if name.startswith("file:"):
            return self._below(_path_of(name))
        if PurePosixPath(name).is_absolute():
            raise ClipError("name it by its path below the served folder, not by an absolute one")
        return self._below(name)

    def _below(self, name: str) -> Path:
        """The file of a path, relative to the folder or absolute."""
        # One sentence for all of these: it must not tell what there is outside.
        absent = ClipError("no such file below the served folder")
        # `..` is refused before anything is looked up: whether `a/../b` exists depends on what `a` is.
        if self.folder is None or _is_devious(name):
            raise absent
        asked = PurePosixPath(name)
        if asked.is_absolute():
            roots = [root for root in (self.folder, self.named) if root and asked.is_relative_to(root)]
            if not roots:
                raise absent  # before anything outside is looked up
            asked = asked.relative_to(roots[0])
        try:
            path = followed(self.folder / asked)
        except (OSError, ValueError):  # missing, not encodable
            raise absent from None
        if not path.is_relative_to(self.folder) or not path.is_file():
            raise absent
        return path

    def _fetched(self, uri: str, target: Path) -> Path:
        """An object below the prefix, as a file."""
        absent = ClipError("no such object below the served prefix")
        if self.prefix is None or self.store is None or not uri.startswith(f"{self.prefix}/"):
            raise absent
        # A gateway may take these for folders, and lead elsewhere.
        parts = uri.removeprefix(_S3).split("/")
        if _is_devious(uri.removeprefix(_S3)) or any(part in ("", ".") for part in parts):
            raise absent
        try:
            return self.store.download(uri, target, on_bytes=_Counter())
        except StorageError as error:
            # Its sentence names the server, so it is not for clients.
            logger.warning("%s", error)
            raise ClipError(
                "no such object below the served prefix, or it can't be fetched; the server's log says why"
            ) from None


def served_clips(variables: Mapping[str, str] = os.environ) -> ServedClips:
    """What `ERV_SERVE_ROOT` names: a folder, `s3://bucket/prefix`, or both with a comma between them.

    Raises:
        RegistryError: it names something else.
        StorageError: it names a prefix, but no object store is configured.
        SettingsError: the store's variables are wrong.
    """
    folder = prefix = None
    for value in (part.strip() for part in variables.get(ROOT_VARIABLE, "").split(",")):
        if value.startswith(_S3) and prefix is None:
            prefix = value.rstrip("/")
        elif value and not value.startswith(_S3) and folder is None:
            folder = Path((value.startswith("file:") and _path_of(value)) or value)
            if not folder.is_dir():
                raise RegistryError(
                    f"{ROOT_VARIABLE} is {value!r}, not a folder; name the folder of the clips, s3://bucket/prefix,"
                    " or both with a comma between them"
                )
        elif value:
            raise RegistryError(f"{ROOT_VARIABLE} names more than one folder or more than one prefix")
    if folder is None:
        return ServedClips(None, prefix, _store_of(prefix))
    return ServedClips(folder.resolve(), prefix, _store_of(prefix), folder.absolute())


def _store_of(prefix: str | None) -> Downloads | None:
    if prefix is None:
        return None
    from erv.environment import load_environment
    from erv.storage.store import open_store, split_uri

    split_uri(prefix)
    return open_store(load_environment())


class _Counter:
    """Stops a download that is too large."""

    def __init__(self) -> None:
        self._bytes = 0

    def __call__(self, count: int) -> None:
        self._bytes += count
        if self._bytes > MAX_FETCHED_MB * 1_000_000:
            raise ClipError(f"larger than {MAX_FETCHED_MB} MB")


def _path_of(uri: str) -> str:
    """The path in a `file://` URI; empty if it names another machine. `#` and `?` belong to the path."""
    try:
        parts = urlsplit(uri, allow_fragments=False)
    except ValueError:
        return ""
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return unquote(path) if parts.netloc in ("", "localhost") else ""


def _is_devious(name: str) -> bool:
    return not name or len(name) > LONGEST_NAME or "\0" in name or ".." in PurePosixPath(name).parts


def _bytes_of(content: Any) -> bytes:
    """The bytes of a file; raises ClipError."""
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, str):
        raise ClipError("the content is neither bytes nor a text in base64")
    if head := _DATA_URI.match(content):
        if not head[0].lower().endswith(";base64,"):
            raise ClipError("the content is a data: URI, but not in base64")
        content = content[head.end() :]
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ClipError("the content is not in base64") from None
