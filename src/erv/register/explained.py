"""Errors of MLflow in one sentence, for those who publish, promote and roll back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from erv.environment import Environment
from erv.errors import RegistryError
from erv.stack.reach import require
from erv.tracking.patience import patient_requests


@contextmanager
def explained(environment: Environment) -> Iterator[None]:
    """Turns errors of MLflow within the block into one sentence.

    Raises:
        RegistryError: MLflow can't be reached or refuses.
    """
    require("MLflow", environment.mlflow_uri, environment.workspace)
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        with patient_requests():
            yield
    except (MlflowException, RequestException) as error:
        text = environment.mask(" ".join(str(error).split()))[:300]
        # Not a version of it: that one was deleted.
        absent = "Registered Model with name=" in text and text.endswith("not found")
        hint = "; `erv run` registers the first version" if absent else ""
        raise RegistryError(f"MLflow at {environment.mlflow_uri}: {text}{hint}") from error
