"""Calls to MLflow that are repeated when an answer is lost.

MLflow's own client repeats requests that are refused with 429 or 5xx, but not those whose answer is cut in
its body, and `erv.tracking.lock_entries.client_of` keeps its repetitions few.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# Responses that another attempt won't change.
FINAL = frozenset(
    {
        "BAD_REQUEST",
        "CUSTOMER_UNAUTHORIZED",
        "INVALID_PARAMETER_VALUE",
        "NOT_IMPLEMENTED",
        "PERMISSION_DENIED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
        "UNAUTHENTICATED",
    }
)
_VARIABLE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_REQUESTS = "3"
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.3


@contextmanager
def patient_requests() -> Iterator[None]:
    """Lets MLflow's client repeat refused requests during the block, whatever the process set before."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = _REQUESTS
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


def repeated(call: Callable[[], T]) -> T:
    """Repeats a call that may be made twice, while its error may pass.

    Raises:
        MlflowException, OSError: the last attempt's, or at once what another attempt won't change.
    """
    from funcy import retry
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    result: T = retry(
        _ATTEMPTS,
        errors=(MlflowException, RequestException),
        filter_errors=lambda error: getattr(error, "error_code", None) not in FINAL,
        timeout=lambda attempt: _FIRST_PAUSE_SECONDS * 2**attempt,
    )(call)()
    return result
