"""The object store: a thin layer over boto3 that takes URIs and raises errors of one sentence.

Retries of requests are botocore's own (standard mode), those of cut bodies `retried`. `Environment` decides
the endpoint and the key. The user's AWS profile and files are not read unless `ERV_S3_AMBIENT=1` asks for it.
"""

from __future__ import annotations

import builtins
import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from erv.environment import Environment, remedy_for
from erv.errors import StorageError
from erv.files import sha256_of_file
from erv.storage.downloads import DIGEST_KEY, Download
from erv.storage.errors import AMAZON, CHANGED, MISSING, REFUSED, error_code, explain, explained, retried

__all__ = ["ObjectInfo", "Store", "explain", "open_store", "split_uri"]

logger = logging.getLogger(__name__)

_THREADS = 8


@dataclass(frozen=True)
class ObjectInfo:
    """An object of a listing.

    Attributes:
        uri: `s3://bucket/key`.
        key: relative to the bucket.
        size: in bytes.
        version_id: None where versioning is off.
        etag: changes with the content; quoted, as S3 returns it.
        modified: when it was stored, by the server's clock; `Store.now` is by the same.
    """

    uri: str
    key: str
    size: int
    version_id: str | None
    etag: str | None = None
    modified: datetime | None = field(default=None, compare=False)


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; the key has no slash at either end.

    Raises:
        StorageError: not an S3 URI, or without a bucket.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise StorageError(f"{uri!r}: expected s3://bucket/key")
    return bucket, key.strip("/")


class Store:
    """One S3 server with one key. Thread-safe."""

    def __init__(self, client: Any, endpoint: str, workspace: str | Path = ".") -> None:
        self._client = client
        self._endpoint = endpoint
        self._workspace = workspace
        self._versioned: dict[str, bool] = {}

    def read(self, uri: str, version_id: str | None = None) -> bytes:
        """The bytes of an object, in its newest version unless one is given."""
        return retried(self._read, uri, version_id)

    def _read(self, uri: str, version_id: str | None) -> bytes:
        bucket, key = split_uri(uri)
        with self._explained(uri, version_id):
            answer = self._client.get_object(Bucket=bucket, Key=key, **_version(version_id))
            content: bytes = answer["Body"].read()
            return content

    def write(self, data: bytes, uri: str) -> None:
        """Stores bytes as an object."""
        bucket, key = split_uri(uri)
        with self._explained(uri):
            self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def write_if(self, data: bytes, uri: str, etag: str | None) -> str | None:
        """Stores bytes as an object only if its etag is still `etag`, or, for None, if there is none.

        Returns:
            The new etag, or None if the condition does not hold. `data` must differ from what others write:
            a write that was repeated because its answer was lost is recognised by it.
        """
        from botocore.exceptions import ClientError

        bucket, key = split_uri(uri)
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        with self._explained(uri):
            try:
                new: str = self._client.put_object(Bucket=bucket, Key=key, Body=data, **condition)["ETag"]
                return new
            except ClientError as error:
                if error_code(error) not in CHANGED:
                    raise
        found = self.aged(uri)
        return found[1] if found is not None and found[0] == data else None

    def delete_if(self, uri: str, etag: str) -> None:
        """Removes an object only if its etag is still `etag`."""
        from botocore.exceptions import ClientError

        bucket, key = split_uri(uri)
        with self._explained(uri):
            try:
                self._client.delete_object(Bucket=bucket, Key=key, IfMatch=etag)
            except ClientError as error:
                if error_code(error) not in CHANGED | MISSING:
                    raise

    def aged(self, uri: str) -> tuple[bytes, str, float] | None:
        """Content, etag and age (seconds, by the server's clock) of a small object; None if missing."""
        return retried(self._aged, uri)

    def _aged(self, uri: str) -> tuple[bytes, str, float] | None:
        from botocore.exceptions import ClientError

        bucket, key = split_uri(uri)
        with self._explained(uri):
            try:
                answer = self._client.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error_code(error) in MISSING:
                    return None
                raise
            age = (_date(answer) - answer["LastModified"]).total_seconds()
            return answer["Body"].read(), answer["ETag"], age

    def now(self, bucket: str) -> datetime:
        """The time by the server's clock, which is that of `ObjectInfo.modified`."""
        with self._explained(f"s3://{bucket}"):
            return _date(self._client.head_bucket(Bucket=bucket))

    def age(self, uri: str) -> float | None:
        """The age of an object in seconds, by the server's clock; None if there is none."""
        from botocore.exceptions import ClientError

        bucket, key = split_uri(uri)
        with self._explained(uri):
            try:
                answer = self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error_code(error) in MISSING:
                    return None
                raise
            age: float = (_date(answer) - answer["LastModified"]).total_seconds()
            return age

    def upload(self, path: str | Path, uri: str) -> None:
        """Stores a file as the object `uri`, in parts when it is large."""
        bucket, key = split_uri(uri)
        path = Path(path)
        if not path.is_file():
            raise StorageError(f"{path}: no such file, nothing was uploaded to {uri}")
        with self._explained(uri):
            self._client.upload_file(str(path), bucket, key)

    def mirror_tree(self, folder: str | Path, uri: str) -> dict[str, int]:
        """Makes the objects below `uri` equal to a folder's files: stores what differs, deletes the rest.

        An object whose content already matches is left alone, so that its version id, which a lock file may
        name, stays the newest. An object that another program stored, without our `sha256`, is replaced.

        Returns:
            How many objects were `stored`, `kept` and `deleted`.
        """
        folder = Path(folder)
        files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if not files:
            raise StorageError(f"{folder}: no files, nothing was uploaded to {uri}")
        base = uri.rstrip("/")
        present = {item.uri.removeprefix(f"{base}/"): item for item in self.list(base)}

        def bring(item: tuple[str, Path]) -> bool:
            name, path = item
            digest = sha256_of_file(path)
            if name in present and self._digest(f"{base}/{name}") == digest:
                return False
            bucket, key = split_uri(f"{base}/{name}")
            with self._explained(f"{base}/{name}"):
                self._client.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": {DIGEST_KEY: digest}})
            return True

        with ThreadPoolExecutor(_THREADS) as pool:
            stored = sum(pool.map(bring, files.items()))
            extra = sorted(set(present) - set(files))
            builtins.list(pool.map(lambda name: self.delete(f"{base}/{name}"), extra))
        return {"stored": stored, "kept": len(files) - stored, "deleted": len(extra)}

    def _digest(self, uri: str) -> str | None:
        """The sha256 that `mirror_tree` stored with an object."""
        bucket, key = split_uri(uri)
        with self._explained(uri):
            found: str | None = self._client.head_object(Bucket=bucket, Key=key)["Metadata"].get(DIGEST_KEY)
            return found

    def download(
        self,
        uri: str,
        path: str | Path,
        version_id: str | None = None,
        sha256: str | None = None,
        *,
        size: int | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path:
        """Copies an object to a file, which appears only once it is complete and has the right hash.

        An interrupted download of a large object resumes where it stopped.

        Args:
            uri: of the object.
            path: of the file.
            version_id: the version to read; the newest if omitted.
            sha256: hex digest that the content must have, if known.
            size: in bytes, if known; saves a request.
            on_bytes: called with the size of each chunk that arrives; it may raise to stop the download.

        Raises:
            StorageError: the object can't be read, the connection broke, or the content does not match
            `sha256` or what the server reports.
        """
        bucket, key = split_uri(uri)
        more = {"on_bytes": on_bytes} if on_bytes else {}
        job = Download(
            self._client,
            self._endpoint,
            uri,
            bucket,
            key,
            version_id,
            sha256,
            workspace=self._workspace,
            **more,
        )
        return job.to(Path(path), size)

    def sha256(
        self, uri: str, version_id: str | None = None, on_bytes: Callable[[int], None] | None = None
    ) -> str:
        """The SHA-256 of an object's content, 64 hexadecimal digits; it is streamed and kept nowhere.

        Args:
            uri: of the object.
            version_id: the version to read; the newest if omitted.
            on_bytes: called with the size of each chunk that arrives; it may raise to stop.

        Raises:
            ObjectError: there is no such object or version.
            StorageError: the object can't be read, or the connection broke.
        """
        bucket, key = split_uri(uri)
        more: dict[str, Any] = {"on_bytes": on_bytes} if on_bytes else {}
        job = Download(
            self._client, self._endpoint, uri, bucket, key, version_id, workspace=self._workspace, **more
        )
        return job.digest()

    def list(self, uri: str) -> builtins.list[ObjectInfo]:
        """The objects below a folder `s3://bucket/prefix`, sorted by key; empty if there are none.

        If the key may list objects but not versions, they have no version ids.
        """
        bucket, prefix = split_uri(uri)
        where = f"{prefix}/" if prefix else ""
        with self._explained(uri):
            try:
                listing = self._list_versions if self.versioned(bucket) else self._list_plain
            except StorageError as error:
                if error_code(error.__cause__ or error) != REFUSED:
                    raise
                found = self._list_plain(bucket, where)
                self._versioned[bucket] = False
                logger.warning(
                    "bucket %s: the key may not list versions, so none are pinned; content is protected by"
                    " sha256",
                    bucket,
                )
            else:
                found = listing(bucket, where)
            return sorted(found, key=lambda item: item.key)

    def _list_plain(self, bucket: str, prefix: str) -> builtins.list[ObjectInfo]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [
            ObjectInfo(
                f"s3://{bucket}/{item['Key']}",
                item["Key"],
                item["Size"],
                None,
                item["ETag"],
                item["LastModified"],
            )
            for page in pages
            for item in page.get("Contents", [])
        ]

    def _list_versions(self, bucket: str, prefix: str) -> builtins.list[ObjectInfo]:
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        return [
            ObjectInfo(
                f"s3://{bucket}/{item['Key']}",
                item["Key"],
                item["Size"],
                _known(item["VersionId"]),
                item["ETag"],
                item["LastModified"],
            )
            for page in pages
            for item in page.get("Versions", [])
            if item["IsLatest"]
        ]

    def exists(self, uri: str, version_id: str | None = None) -> bool:
        """Whether the object exists; False for a missing bucket, an error for a refused key."""
        from botocore.exceptions import ClientError

        bucket, key = split_uri(uri)
        with self._explained(uri):
            try:
                self._client.head_object(Bucket=bucket, Key=key, **_version(version_id))
            except ClientError as error:
                if error.response["Error"]["Code"] in {*MISSING, "NoSuchBucket", "400"}:
                    return False
                raise
        return True

    def delete(self, uri: str, version_id: str | None = None) -> None:
        """Removes an object, or permanently removes one version of it."""
        bucket, key = split_uri(uri)
        with self._explained(uri):
            self._client.delete_object(Bucket=bucket, Key=key, **_version(version_id))

    def ensure_bucket(self, name: str, versioning: bool = False) -> None:
        """Creates the bucket if it doesn't exist, and switches versioning on if asked."""
        from botocore.exceptions import ClientError

        with self._explained(f"s3://{name}"):
            try:
                self._client.head_bucket(Bucket=name)
            except ClientError as error:
                if error.response["Error"]["Code"] not in {*MISSING, "NoSuchBucket"}:
                    raise
                region = self._client.meta.region_name
                elsewhere = self._endpoint == AMAZON and region != "us-east-1"
                more: Any = {"CreateBucketConfiguration": {"LocationConstraint": region}} if elsewhere else {}
                self._client.create_bucket(Bucket=name, **more)
            if versioning and not self.versioned(name):
                self._client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
                self._versioned[name] = True

    def versioned(self, bucket: str) -> bool:
        """Whether the bucket keeps versions; requested once."""
        if bucket not in self._versioned:
            with self._explained(f"s3://{bucket}"):
                state = self._client.get_bucket_versioning(Bucket=bucket).get("Status")
            self._versioned[bucket] = state == "Enabled"
        return self._versioned[bucket]

    def _explained(self, uri: str, version_id: str | None = None) -> AbstractContextManager[None]:
        return explained(uri, self._endpoint, version_id, self._workspace)


def _date(answer: Any) -> datetime:
    """The server's time of an answer."""
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])


def open_store(environment: Environment, patient: bool = True) -> Store:
    """Opens the store of an environment, without sending a request.

    Args:
        environment: endpoint and key.
        patient: retry for some seconds; if False, make one short attempt, for health checks.

    Raises:
        StorageError: no store is configured, or the AWS profile that `ERV_S3_AMBIENT` points to does not
        exist.
    """
    if not environment.has_storage:
        remedy = remedy_for("S3", environment.workspace)
        if "ERV_S3_" not in remedy:
            remedy += ", or set ERV_S3_ENDPOINT, ERV_S3_ACCESS_KEY and ERV_S3_SECRET_KEY"
        raise StorageError(f"no object store is configured; {remedy}")
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5 if patient else 1},
        connect_timeout=5 if patient else 2,
        read_timeout=60 if patient else 5,
        max_pool_connections=2 * _THREADS,
        # Self-hosted servers seldom have a host name for each bucket.
        s3={"addressing_style": "path" if environment.s3_endpoint else "auto"},
        proxies={} if _is_local(environment.s3_endpoint) else None,
    )
    core = botocore.session.Session()
    keys: dict[str, Any] = {}
    if not environment.s3_ambient:
        # These override the user's files and AWS_PROFILE, even if it names a profile that doesn't exist.
        ours = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull}
        for variable, value in ours.items():
            core.session_var_map[variable] = (None, None, value, None)
        keys = {
            "aws_access_key_id": environment.s3_access_key,
            "aws_secret_access_key": environment.s3_secret_key,
            "aws_session_token": environment.s3_session_token,
        }
    endpoint = environment.s3_endpoint or AMAZON
    try:
        core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
        client = boto3.Session(botocore_session=core).client(
            "s3",
            region_name=environment.s3_region,
            endpoint_url=environment.s3_endpoint,
            config=config,
            **keys,
        )
    except (BotoCoreError, ValueError) as error:
        fault = explain(error, f"s3://{environment.raw_bucket}", endpoint, workspace=environment.workspace)
        raise StorageError(fault) from error
    return Store(client, endpoint, environment.workspace)


@functools.cache
def _loader(data_path: str | None) -> Any:
    """What botocore knows of S3 and its endpoints: JSON that every client would parse again, for 0.1 s."""
    from botocore.loaders import create_loader

    return create_loader(data_path)


def _is_local(endpoint: str | None) -> bool:
    return endpoint is not None and any(host in endpoint for host in ("//127.0.0.1", "//localhost"))


def _version(version_id: str | None) -> Any:
    return {"VersionId": version_id} if version_id else {}


def _known(version_id: str | None) -> str | None:
    """`null` is S3's name for the version of an object from before versioning."""
    return None if version_id in (None, "null") else version_id
