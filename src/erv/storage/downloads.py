"""Resumable downloads.

A large object is read into a `.part` file named after its uri and version, and the next attempt requests only
the rest. A part is never trusted: the whole content is hashed before the file gets its real name. Small
objects are read in one go, because checking for a part costs more than reading them again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from erv.errors import StorageError
from erv.files import sha256_of_file, sha256_of_text, whole_file
from erv.storage.errors import ObjectError, TransferError, error_code, explain, explained, retried

# Objects of at least this size, in bytes, leave a part behind when the connection breaks.
RESUMED_FROM = 8 << 20
# The metadata under which `Store.mirror_tree` keeps an object's sha256.
DIGEST_KEY = "sha256"

_CHUNK = 1 << 20
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _nothing(count: int) -> None:
    """The default of `on_bytes`."""


@dataclass(frozen=True)
class Download:
    """The download of one object to a local file.

    Attributes:
        client: boto3's S3 client.
        endpoint: for messages.
        uri: `s3://bucket/key`.
        bucket: of the uri.
        key: of the uri.
        version_id: the version to read, None for the newest.
        sha256: hex digest that the content must have. None if it isn't known yet: then the content is checked
            against what the server reports (its size, and its md5 or our sha256 if present).
        on_bytes: called with the size of each chunk that arrives; it may raise to stop the download.
        workspace: whose servers a remedy is about.
    """

    client: Any
    endpoint: str
    uri: str
    bucket: str
    key: str
    version_id: str | None = None
    sha256: str | None = None
    on_bytes: Callable[[int], None] = _nothing
    workspace: str | Path = "."

    def to(self, path: Path, size: int | None = None) -> Path:
        """Reads the object into `path`, which appears only once it is complete and verified.

        Args:
            path: of the file.
            size: of the object in bytes, if known.

        Raises:
            StorageError: the object can't be read, the connection broke, the disk is full, or the content is
            wrong.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if size is not None and size < RESUMED_FROM:
                return retried(self._in_one_go, path)
            head = self._head()
            if head is None or head["ContentLength"] < RESUMED_FROM:
                return retried(self._in_one_go, path)
            return retried(self._in_parts, path, head)
        except OSError as error:
            raise StorageError(
                f"{error.filename or path}: {error.strerror or error}; fix it and run the same command again"
            ) from error

    def digest(self) -> str:
        """The SHA-256 of the object, 64 hexadecimal digits, without keeping its content.

        Raises:
            StorageError: the object can't be read, or the connection broke.
        """
        return retried(self._digest)

    def _digest(self) -> str:
        content = _Content()
        response = self._ask(self.client.get_object)
        with Path(os.devnull).open("wb") as nowhere:
            self._receive(response, nowhere, content, response["ContentLength"], "")
        self._check_size(content, response)
        return content.sha256.hexdigest()

    def _head(self) -> Mapping[str, Any] | None:
        """Size and etag; None if refused: a refused HEAD has no error message, a refused GET has one."""
        try:
            answer: Mapping[str, Any] = self._ask(self.client.head_object)
        except StorageError as error:
            if error_code(error.__cause__ or error) == "?":  # the server did not answer at all
                raise
            return None
        return answer

    def _in_one_go(self, path: Path) -> Path:
        content = _Content()
        with whole_file(path, shared=True) as temporary:
            response = self._ask(self.client.get_object)
            with temporary.open("wb") as stream:
                self._receive(response, stream, content, response["ContentLength"], "")
            self._verify(content, response)
        return path

    def _in_parts(self, path: Path, head: Mapping[str, Any]) -> Path:
        from filelock import FileLock

        size, etag = head["ContentLength"], head["ETag"]
        # Not `whole_file`: the next process has to find the part, so its name is the same for all.
        part = path.with_name(f".{_short(self.uri)}-{_short(self.version_id or etag)}.part")
        # Two processes that want the same object take turns, and the second finds it complete.
        turn = part.with_suffix(".lock")
        with FileLock(turn):
            if self.sha256 and path.is_file() and sha256_of_file(path) == self.sha256:
                return path
            if part.is_file() and part.stat().st_size > size:
                part.unlink()
            content = _Content()
            with part.open("a+b") as stream:
                stream.seek(0)
                while chunk := stream.read(_CHUNK):
                    content.add(chunk)
                kept = content.size
                if kept < size:
                    # The version or the etag guarantees that the rest belongs to the same content.
                    asked = {"Range": f"bytes={kept}-"} if kept else {}
                    response = self._ask(self.client.get_object, IfMatch=etag, **asked)
                    if kept and response["ResponseMetadata"]["HTTPStatusCode"] != 206:
                        stream.truncate(0)
                        content = _Content()
                    self._receive(response, stream, content, size, " to resume from there")
            try:
                self._verify(content, head)
            except StorageError as error:
                part.unlink()
                if not kept:
                    raise
                raise TransferError(
                    f"{self.uri}: the part kept from an earlier attempt does not match and was dropped; "
                    "run the same command again"
                ) from error
            part.replace(path)
            # A process still waiting for the lock finds the file complete.
            turn.unlink(missing_ok=True)
        return path

    def _ask(self, method: Callable[..., Any], **more: Any) -> Any:
        version = {"VersionId": self.version_id} if self.version_id else {}
        with explained(self.uri, self.endpoint, self.version_id, self.workspace):
            return method(Bucket=self.bucket, Key=self.key, **version, **more)

    def _receive(
        self, response: Mapping[str, Any], stream: BinaryIO, content: _Content, size: int, then: str
    ) -> None:
        from botocore.exceptions import BotoCoreError, HTTPClientError, IncompleteReadError
        from urllib3.exceptions import HTTPError

        body = response["Body"]
        try:
            for chunk in body.iter_chunks(_CHUNK):
                stream.write(chunk)
                content.add(chunk)
                self.on_bytes(len(chunk))
        except (HTTPClientError, IncompleteReadError, HTTPError) as error:
            raise TransferError(
                f"{self.uri}: the connection to {self.endpoint} broke after {content.size / 1e6:.1f} of"
                f" {size / 1e6:.1f} MB; run the same command again{then}"
            ) from error
        except BotoCoreError as error:  # its own checksum of the content does not fit
            raise TransferError(explain(error, self.uri, self.endpoint, workspace=self.workspace)) from error
        finally:
            body.close()

    def _verify(self, content: _Content, response: Mapping[str, Any]) -> None:
        """Compares the content with the pinned hash, or else with what the server reports."""
        self._check_size(content, response)
        found = content.sha256.hexdigest()
        if self.sha256 is not None:
            if found != self.sha256:
                raise ObjectError(
                    f"{self.uri}: content has changed, sha256 is {found}, expected {self.sha256}; "
                    "run `erv data pin` if the change is intended"
                )
            return
        ours = response.get("Metadata", {}).get(DIGEST_KEY, "")
        if _SHA256.fullmatch(ours) and ours != found:
            raise ObjectError(
                f"{self.uri}: content is not what was uploaded (sha256 is {found[:12]}, the upload says"
                f" {ours[:12]}); upload it again"
            )
        # An etag is the md5 of the content unless it was uploaded in parts or encrypted with its own key.
        encrypted = response.get("SSECustomerAlgorithm") or "kms" in response.get("ServerSideEncryption", "")
        etag = _MD5.fullmatch(response["ETag"])
        if etag and not encrypted and etag.group(1) != content.md5.hexdigest():
            raise TransferError(
                f"{self.uri}: arrived damaged (md5 is {content.md5.hexdigest()}, expected {etag.group(1)}); "
                "run the same command again"
            )

    def _check_size(self, content: _Content, response: Mapping[str, Any]) -> None:
        if content.size != response["ContentLength"]:
            raise TransferError(
                f"{self.uri}: {content.size} of {response['ContentLength']} bytes arrived; "
                "run the same command again"
            )


class _Content:
    """Size and digests of the bytes received so far."""

    def __init__(self) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.sha256.update(chunk)
        self.md5.update(chunk)


def _short(text: str) -> str:
    return sha256_of_text(text)[:16]
