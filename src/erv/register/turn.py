"""One change of the registry at a time: MLflow's aliases and tags have no compare-and-set.

Processes of this workspace take turns by a lock file, those elsewhere by a lease in the object store that
holds MLflow's artifacts. Both are free again when their holder is killed: the file at once, the lease after a
minute. Where no store is named, a warning says that nobody elsewhere is kept out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from erv.environment import Environment
from erv.errors import RegistryError, StorageError
from erv.storage.errors import MISSING, WRONG_KEY, error_code
from erv.storage.lease import PATIENCE_SECONDS, LeaseHeldError, leased
from erv.storage.store import open_store
from erv.tracking.origin import who

logger = logging.getLogger(__name__)

# The user's own server may have no such bucket, refuse our key, or know no conditional writes.
_NO_LEASES = {*MISSING, *WRONG_KEY, "NoSuchBucket", "NotImplemented", "InvalidArgument", "InvalidRequest"}
_ALONE = "no lease can be kept: %s; make sure that nobody on another machine publishes or promotes now"


@contextmanager
def registry_turn(
    environment: Environment, name: str, *, patience: float = PATIENCE_SECONDS
) -> Iterator[Callable[[], None]]:
    """Waits until no other process changes the registered model, and keeps others from it during the block.

    Args:
        environment: workspace and object store.
        name: of the registered model.
        patience: seconds to wait.

    Yields:
        A check to call before each change: it raises StorageError if this process was stopped so long that
        another one took its turn.

    Raises:
        RegistryError: another process kept its turn all the time.
        StorageError: the object store can't be reached.
    """
    from filelock import FileLock, Timeout

    path = environment.state / "registry.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("another process of this workspace changes the registry; waiting for it")
            try:
                lock.acquire(timeout=patience)
            except Timeout:
                raise _still_held(name, patience, str(path)) from None
        stack.callback(lock.release)
        check: Callable[[], None] = _nothing
        if environment.has_storage:
            uri = f"s3://{environment.artifact_bucket}/.leases/{name}"
            me = who(environment.workspace)
            lease = leased(open_store(environment), uri, patience=patience, who=me)
            try:
                check = stack.enter_context(lease).renew
            except LeaseHeldError as error:
                raise _still_held(name, patience, str(error)) from error
            except StorageError as error:
                if error_code(error.__cause__ or error) not in _NO_LEASES:
                    raise
                logger.warning(_ALONE, error)
        else:
            logger.warning(_ALONE, "no object store is named (ERV_S3_*)")
        yield check


def _nothing() -> None:
    """The check without a lease: the kernel keeps the lock file for us."""


def _still_held(name: str, patience: float, holder: str) -> RegistryError:
    return RegistryError(
        f"{name}: another process has been changing the registry for over {patience:.0f} s ({holder}); "
        "wait for it or end it, then run the same command again"
    )
