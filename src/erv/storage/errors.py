"""Errors of boto3 and the network as one sentence: what was requested, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from erv.environment import SAMPLE_UPLOAD, command_for, is_shared, remedy_for, sample_remedy
from erv.errors import StorageError

P = ParamSpec("P")
T = TypeVar("T")

AMAZON = "Amazon S3"

# The key is known but not allowed to do this.
REFUSED = "AccessDenied"
WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", REFUSED, "Forbidden", "403"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "RequestExpired"}
MISSING = {"NoSuchKey", "NoSuchVersion", "NotFound", "404", "InvalidVersionId", "MethodNotAllowed"}
SKEWED = {"RequestTimeTooSkewed"}
# A conditional request whose condition does not hold.
CHANGED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}

# Attempts for the body of an answer, and the first of the pauses between them, which double.
_ATTEMPTS = 6
_FIRST_PAUSE_SECONDS = 0.2


class TransferError(StorageError):
    """The body of an answer was cut or arrived damaged; another attempt may succeed."""


class ObjectError(StorageError):
    """One object is missing, or is not what it was; others can be read."""


def retried(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Repeats a call that ends with TransferError, a few times with growing pauses.

    Raises:
        TransferError: the last attempt's.
    """
    from funcy import retry

    repeated = retry(_ATTEMPTS, errors=TransferError, timeout=lambda n: _FIRST_PAUSE_SECONDS * 2**n)
    result: T = repeated(call)(*args, **kwargs)
    return result


@contextmanager
def explained(
    uri: str, endpoint: str, version_id: str | None = None, workspace: str | Path = "."
) -> Iterator[None]:
    """Turns what boto3 raises in the block into a StorageError.

    Args:
        uri: what is requested.
        endpoint: the server, for the message.
        version_id: the requested version, if any.
        workspace: whose servers the remedy is about.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )

    try:
        yield
    except (IncompleteReadError, ResponseStreamingError) as error:
        raise TransferError(
            f"{uri}: the connection to {endpoint} broke in mid-answer; run the same command again"
        ) from error
    except (BotoCoreError, ClientError) as error:
        kind = ObjectError if error_code(error) in MISSING | CHANGED else StorageError
        raise kind(explain(error, uri, endpoint, version_id, workspace)) from error
    except S3UploadFailedError as error:
        cause = error.__context__
        raise StorageError(explain(cause or error, uri, endpoint, version_id, workspace)) from error


def explain(
    error: BaseException,
    uri: str,
    endpoint: str,
    version_id: str | None = None,
    workspace: str | Path = ".",
) -> str:
    """One sentence for a boto3 error: what was requested from where, what is wrong, what to do."""
    from botocore.exceptions import (
        ClientError,
        ConnectionClosedError,
        EndpointConnectionError,
        HTTPClientError,
        NoCredentialsError,
        ProfileNotFound,
    )

    unreachable = (EndpointConnectionError, ConnectionClosedError, HTTPClientError)
    if isinstance(error, ClientError):
        return _refusal(error, uri, endpoint, version_id, workspace)
    if isinstance(error, unreachable):
        return f"{uri}: {endpoint} can't be reached; {remedy_for('S3', workspace)}"
    if isinstance(error, NoCredentialsError | ProfileNotFound):
        return f"{uri}: no usable AWS credentials ({error}); ERV_S3_AMBIENT=1 takes them from AWS's own chain"
    return f"{uri}: {endpoint}: {' '.join(str(error).split())}"


def error_code(error: BaseException) -> str:
    """S3's error code, or `?` if there is none."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", "?"))


def is_unanswered(error: StorageError) -> bool:
    """Whether a server gave no answer, or only that it is in trouble itself (500 and above).

    It may pass by itself, other than a refusal or a damaged object.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    cause = error.__cause__
    if isinstance(cause, S3UploadFailedError):
        cause = cause.__context__
    if isinstance(cause, ClientError):
        return int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) >= 500
    return isinstance(error, TransferError) or isinstance(cause, ConnectionError | HTTPClientError)


def _refusal(
    error: BaseException, uri: str, endpoint: str, version_id: str | None, workspace: str | Path
) -> str:
    code = error_code(error)
    if code in EXPIRED:
        return f"{uri}: the session token for {endpoint} has expired; renew it and ERV_S3_SESSION_TOKEN"
    if code in WRONG_KEY:
        return (
            f"{uri}: {endpoint} refuses the key ({code}); check ERV_S3_ACCESS_KEY and ERV_S3_SECRET_KEY, "
            "or `.erv/stack.env`"
        )
    if code in SKEWED:
        return f"{uri}: the clock of this machine differs from that of {endpoint}; set it and run again"
    if code == "NoSuchBucket":
        bucket = uri.split("/")[2]
        ours = f"`{command_for('S3', workspace)}` creates ours"
        what = "create it, or name another" if is_shared("S3", workspace) else ours
        return f"{uri}: bucket {bucket!r} does not exist at {endpoint}; {what}"
    if code in MISSING and version_id:
        return (
            f"{uri}: version {version_id} is no longer kept at {endpoint}; restore it, or pin what is there"
            " now with `erv data pin`"
        )
    if code in MISSING:
        upload = sample_remedy(workspace, command=SAMPLE_UPLOAD) if uri.startswith("s3://erv-raw/") else None
        sample = f" ({upload} for the sample)" if upload else ""
        return f"{uri}: no such object at {endpoint}; upload it{sample}, or correct the address"
    if code in CHANGED:
        return f"{uri}: the object was overwritten while it was read; run the same command again"
    response = getattr(error, "response", {})
    message = str(response.get("Error", {}).get("Message", "")).strip().rstrip(".")
    return f"{uri}: {endpoint} answered {code}: {message}"
