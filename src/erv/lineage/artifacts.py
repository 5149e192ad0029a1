"""Downloads of what MLflow keeps: bundles, and the pipeline files stored with a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from erv.environment import Environment
from erv.errors import full_disk
from erv.tracking.lock_entries import LOCK_ARTIFACT_FOLDER
from erv.tracking.patience import patient_requests, repeated


class Artifacts:
    """Artifacts of one MLflow server.

    Attributes:
        unread: why the last download failed; empty if there is no such artifact.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.unread = ""

    def pipeline_of(self, run_id: str | None, folder: str) -> Path | None:
        """The folder with the pipeline files stored with a run."""
        if run_id is None:
            return None
        return self.download(f"runs:/{run_id}/{LOCK_ARTIFACT_FOLDER}", folder)

    def download(self, uri: str, folder: str) -> Path | None:
        """Artifacts in a temporary folder, or None.

        `self.unread` says why they can't be read now, and is empty if they don't exist: a full disk, here or
        at the server, or an outage doesn't break a lineage.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        where = {"artifact_uri": uri, "tracking_uri": self._environment.mlflow_uri}
        self.unread = ""
        try:
            with patient_requests():
                if not repeated(lambda: mlflow.artifacts.list_artifacts(**where)):
                    return None
                fetch = partial(mlflow.artifacts.download_artifacts, **where, dst_path=folder)
                return Path(repeated(fetch))
        except (MlflowException, OSError) as error:
            if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
                reason = full_disk(error) or " ".join(str(error).split())[:200]
                self.unread = self._environment.mask(f"can't be read now: {reason}")
        return None
