"""Listing with a key that may not do everything, on a real SeaweedFS behind a relay that refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from erv.environment import Environment
from erv.errors import StorageError
from erv.storage.store import Store, open_store
from tests.integration.proxy import Proxy

pytestmark = pytest.mark.integration

FOLDER = "s3://erv-raw/listing"
VERSIONS, LIST = "?versioning", "list-type=2"


@pytest.fixture
def proxy(stack: Environment) -> Iterator[Proxy]:
    open_store(stack).write(b"one", f"{FOLDER}/a.mp4")
    relay = Proxy(str(stack.s3_endpoint))
    yield relay
    relay.close()


@pytest.fixture
def store(stack: Environment, proxy: Proxy) -> Store:
    return open_store(replace(stack, s3_endpoint=proxy.endpoint), patient=False)


def test_a_key_that_may_not_ask_for_versions_lists_without(
    store: Store, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.refused = {VERSIONS: "AccessDenied"}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (item,) = store.list(FOLDER)
    assert (item.uri, item.size, item.version_id) == (f"{FOLDER}/a.mp4", 3, None)
    (record,) = [record for record in caplog.records if record.name.startswith("erv")]
    assert "bucket erv-raw: the key may not list versions, so none are pinned" in record.getMessage()


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({VERSIONS: "SignatureDoesNotMatch"}, r"refuses the key \(SignatureDoesNotMatch\)"),
        ({VERSIONS: "InvalidAccessKeyId"}, r"refuses the key \(InvalidAccessKeyId\)"),
        ({VERSIONS: "AccessDenied", LIST: "AccessDenied"}, r"refuses the key \(AccessDenied\)"),
        ({VERSIONS: "ExpiredToken"}, "has expired"),
        ({VERSIONS: "InvalidToken"}, "has expired"),
        ({VERSIONS: "SlowDown"}, "answered SlowDown"),
    ],
)
def test_a_key_that_is_refused_is_the_one_thing_said(
    store: Store, proxy: Proxy, caplog: pytest.LogCaptureFixture, refused: dict[str, str], message: str
) -> None:
    proxy.refused = refused
    with pytest.raises(StorageError, match=message):
        store.list(FOLDER)
    assert [record for record in caplog.records if record.name.startswith("erv")] == []
