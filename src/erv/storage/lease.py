"""A lease in the object store: of all processes on all machines, one holds it at a time.

The lease is a small object. It is created and replaced with conditional writes (`If-None-Match: *` and
`If-Match`), so of several writers exactly one succeeds. Its age is the server's `Date` minus the server's
`Last-Modified`, so the clocks of the machines don't matter. A holder renews it in the background; the lease
of a killed one expires.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from erv.errors import StorageError
from erv.storage.store import Store

logger = logging.getLogger(__name__)

# A holder that has not renewed its lease for this long has lost it.
EXPIRY_SECONDS = 60.0
# How long to wait for another holder. Publishing a large model takes minutes.
PATIENCE_SECONDS = 900.0
_PAUSE_SECONDS = 1.0


class LeaseHeldError(StorageError):
    """Another process holds the lease."""


class LeaseLostError(StorageError):
    """This process held the lease and was too slow to renew it."""


class Lease:
    """A held lease.

    Args:
        store: where it is kept.
        uri: of its object.
        expiry: seconds without a renewal after which others may take it.
        who: whom others are told of while this process holds it; empty for the process alone.
    """

    def __init__(self, store: Store, uri: str, expiry: float = EXPIRY_SECONDS, who: str = "") -> None:
        self._store, self._uri, self._expiry = store, uri, expiry
        self._holder = {
            "host": platform.node(),
            "process": os.getpid(),
            "nonce": uuid.uuid4().hex,
            "who": who,
        }
        self._renewals = 0
        self._etag: str | None = None
        self._guard = threading.Lock()
        self._released = threading.Event()

    def take(self) -> None:
        """Takes the lease if it is free or has expired.

        Raises:
            LeaseHeldError: another process holds it.
            StorageError: the store can't be reached or refuses.
        """
        self._etag = self._store.write_if(self._content(), self._uri, None)
        if self._etag is None and (found := self._store.aged(self._uri)) is not None:
            content, etag, age = found
            if age < self._expiry:
                raise LeaseHeldError(f"{self._uri}: held by {_holder_of(content)}")
            logger.warning(
                "%s: %s did not renew it for %.0f s; taking over", self._uri, _holder_of(content), age
            )
            self._etag = self._store.write_if(self._content(), self._uri, etag)
        if self._etag is None:
            raise LeaseHeldError(f"{self._uri}: another process was faster")
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def renew(self) -> None:
        """Renews the lease; call it before each change that needs it.

        Raises:
            LeaseLostError: another process has it by now.
        """
        with self._guard:
            if self._released.is_set():
                return
            etag = self._store.write_if(self._content(), self._uri, self._etag) if self._etag else None
            self._etag = etag
        if etag is None:
            raise LeaseLostError(
                f"{self._uri}: this process was stopped for over {self._expiry:.0f} s and another one took"
                " its turn; run the same command again"
            )

    def release(self) -> None:
        """Gives the lease back, unless another process has it by now."""
        with self._guard:
            self._released.set()
            if self._etag is not None:
                self._store.delete_if(self._uri, self._etag)

    def _keep(self) -> None:
        while not self._released.wait(self._expiry / 4):
            try:
                self.renew()
            except LeaseLostError:
                return  # the holder learns it from its own `renew`
            except StorageError as error:  # the store may be away for a moment
                logger.debug("can't renew the lease now: %s", error)

    def _content(self) -> bytes:
        # Never the same twice, so that each renewal has an etag of its own.
        self._renewals += 1
        return json.dumps({**self._holder, "renewals": self._renewals}).encode()


@contextmanager
def leased(
    store: Store,
    uri: str,
    *,
    patience: float = PATIENCE_SECONDS,
    expiry: float = EXPIRY_SECONDS,
    who: str = "",
) -> Iterator[Lease]:
    """Holds a lease during the block; waits for it if another process holds it.

    Args:
        store: where it is kept.
        uri: of its object.
        patience: seconds to wait.
        expiry: seconds after which the lease of a killed process is free.
        who: as of `Lease`.

    Raises:
        LeaseHeldError: another process held it all the time.
        StorageError: the store can't be reached or refuses.
    """
    from funcy import retry

    lease = Lease(store, uri, expiry, who)
    try:
        lease.take()
    except LeaseHeldError as held:
        logger.warning("%s; waiting for up to %.0f s", held, patience)
        tries = max(1, round(patience / _PAUSE_SECONDS))
        retry(tries, errors=LeaseHeldError, timeout=_PAUSE_SECONDS)(lease.take)()
    try:
        yield lease
    finally:
        lease.release()


def _holder_of(content: bytes) -> str:
    """`process 71 of Ann Lee (ann@box)`; `process 71 on box` of one that doesn't say who, as an older erv."""
    try:
        holder = json.loads(content)
        who = " ".join(str(holder.get("who", "")).split())
        return f"process {holder['process']} " + (f"of {who}" if who else f"on {holder['host']}")
    except (ValueError, KeyError, TypeError, AttributeError):
        return "an unknown process"
