"""The files of results, from DVC's cache and remote and from MLflow; an outage of either is told, once."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from erv.environment import Environment
from erv.errors import ErvError, RegistryError
from erv.lineage.objects import Objects
from erv.tracking.lock_entries import server_of
from erv.tracking.rest import Refused, Run

T = TypeVar("T")
_REMEMBERED = 16  # artifacts; answers are large
_AGAIN = "run the same command again when it is back"


class Files:
    """Where what evaluations wrote may be.

    A server that doesn't answer is asked no more, so that hundreds of results don't wait for it one by one.

    Attributes:
        remarks: a sentence on each server and file that can't be read now.

    Args:
        environment: where DVC's cache and remote and MLflow are.
    """

    def __init__(self, environment: Environment) -> None:
        self.remarks: list[str] = []
        self._environment = environment
        self._objects = Objects(environment)
        self._mlflow_away = environment.mlflow_uri is None
        # All policies of a report are in one file, and many flows have the same evaluation.
        self._remembered = functools.lru_cache(_REMEMBERED)(self._artifact)

    def read(
        self, lock: Mapping[str, Mapping[str, Any]], stage: str, name: str, run: Run | None
    ) -> bytes | None:
        """A file that a stage wrote, or the copy that its run has; None if neither is there.

        Args:
            lock: the lock entries.
            stage: the stage.
            name: of the file, without its folder.
            run: the MLflow run of the stage, or None.
        """
        written = [out for out in (lock.get(stage) or {}).get("outs") or [] if out.get("md5")]
        for out in written:
            if Path(out["path"]).name == name and (found := self._object(str(out["md5"]))) is not None:
                return found
        return None if run is None else self.artifact(run, name)

    def listing(self, md5: str) -> Mapping[str, str] | None:
        """Hash by path of the files in a folder that DVC tracks; None if that can't be read."""
        try:
            return {item["relpath"]: item["md5"] for item in json.loads(self._object(md5) or b"")}
        except (ValueError, LookupError, TypeError):
            return None

    def artifact(self, run: Run, name: str) -> bytes | None:
        """A file among the artifacts of a run; None if it isn't there, or can't be read now."""
        return self._remembered(run.info.run_id, name)

    def _artifact(self, run_id: str, name: str) -> bytes | None:
        server = server_of(self._environment)
        nothing: list[str] = []
        if name not in self._asked(lambda: server.list_artifacts(run_id, ""), nothing):
            return None
        try:
            return self._asked(lambda: server.read_artifact(run_id, name), None, refused=True)
        except Refused as error:
            self.remarks.append(f"{name} of MLflow run {run_id[:8]} can't be read now: {self._reason(error)}")
            return None

    def run(self, run_id: str) -> Run | None:
        """A run by its id; None if there is none, or MLflow can't be asked."""
        return self._asked(lambda: server_of(self._environment).find_run(run_id), None)

    def _object(self, md5: str) -> bytes | None:
        try:
            return self._objects.read(md5)
        except RegistryError:  # it is nowhere, or its content is another one
            return None
        except ErvError as error:
            self.remarks.append(
                f"the object store can't be read ({self._reason(error)}), so what it alone has counts as gone"
                f" here; {_AGAIN}"
            )
            without = replace(self._environment, s3_ambient=False, s3_access_key=None, s3_secret_key=None)
            self._objects = Objects(without)
            return self._object(md5)

    def _asked(self, call: Callable[[], T], otherwise: T, *, refused: bool = False) -> T:
        if self._mlflow_away:
            return otherwise
        try:
            return call()
        except Refused:
            if refused:
                raise
            return otherwise
        except OSError as error:
            self._mlflow_away = True
            self.remarks.append(
                f"MLflow doesn't answer any more ({self._reason(error)}), so what it alone has counts as gone"
                f" here; {_AGAIN}"
            )
            return otherwise

    def _reason(self, error: Exception) -> str:
        return self._environment.mask(" ".join(str(error).split())[:200])
