"""MLflow's REST API, as far as runs need it, without importing MLflow.

`import mlflow` takes two seconds of CPU, and every stage has a run. The API is MLflow's documented and
versioned one (https://mlflow.org/docs/latest/api_reference/rest-api.html). Artifacts go through the server's
own proxy. A server that has its clients write to the artifact store themselves is left to MLflow's client,
which knows all stores.
"""

from __future__ import annotations

import functools
import json
import math
import mimetypes
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from erv.environment import Environment, hand_over_token

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_TIMEOUT_SECONDS = 20.0
_PAGE = 250  # runs in an answer, which has some hundred kilobytes then and has to come within the timeout
RUNNING = "RUNNING"  # the status of a run that goes on
_TRANSIENT = (408, 429, 500, 502, 503, 504)
# What a status means if the answer doesn't say, as MLflow's own client reads it.
_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    501: "NOT_IMPLEMENTED",
}


class Refused(requests.HTTPError):
    """The server answered, but with an error.

    Attributes:
        error_code: MLflow's name for it, such as `RESOURCE_DOES_NOT_EXIST`.
    """

    def __init__(self, error_code: str, message: str, response: requests.Response) -> None:
        super().__init__(f"{error_code}: {message}", response=response)
        self.error_code = error_code


class DeletedExperiment(Refused):
    """The experiment of this name is in MLflow's trash, where it takes no runs."""

    def __init__(self, name: str, number: str, server: str, response: requests.Response) -> None:
        super().__init__("INVALID_STATE", "", response)
        self.args = (deleted_experiment(name, number, server),)


def deleted_experiment(name: str, number: str, server: str) -> str:
    """A sentence that says which experiment of a server is deleted, and how to restore it."""
    return (
        f"the MLflow experiment {name!r} is deleted; restore it with"
        f" `MLFLOW_TRACKING_URI={server} mlflow experiments restore --experiment-id {number}`,"
        " or set ERV_MLFLOW_EXPERIMENT to another name"
    )


@dataclass(frozen=True)
class RunInfo:
    """The fixed part of a run; times in milliseconds since 1970, that of the end 0 while it goes on."""

    run_id: str
    experiment_id: str
    run_name: str
    status: str
    start_time: int
    end_time: int
    artifact_uri: str
    lifecycle_stage: str = "active"  # or deleted


@dataclass(frozen=True)
class RunData:
    """What was logged to a run; of each metric the last value."""

    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A run, with the names of `mlflow.entities.Run`."""

    info: RunInfo
    data: RunData


@dataclass(frozen=True)
class Metric:
    """A point of a curve; `timestamp` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


class Rest:
    """Calls to one MLflow server.

    Every call raises `Refused` if the server answers with an error, and another `OSError` if it can't be
    reached or its answer is cut.

    Args:
        environment: address and key of the server.
        retries: how often a call is repeated that the server refuses for the moment or doesn't answer.
    """

    def __init__(self, environment: Environment, *, retries: int = 0) -> None:
        self._environment = environment
        self._server = (environment.mlflow_uri or "").rstrip("/")
        self._session = requests.Session()
        if environment.mlflow_token:
            self._session.auth = _Bearer(environment.mlflow_token)  # not a header: netrc would replace that
        policy = Retry(
            retries,
            status_forcelist=_TRANSIENT,
            allowed_methods=None,
            backoff_factor=0.3,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=policy))
        self._artifact_uris: dict[str, str] = {}
        self._experiments: dict[str, str] = {}

    # --- experiments and runs

    def experiment_id(self, name: str) -> str | None:
        """The id of an experiment, asked for once; None if there is none of that name.

        Raises:
            DeletedExperiment: there is one, but it is deleted.
        """
        if name not in self._experiments:
            try:
                answer = self._call("GET", "experiments/get-by-name", {"experiment_name": name})
            except Refused as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            found = answer["experiment"]
            number = str(found["experiment_id"])
            if found.get("lifecycle_stage") == "deleted":
                server = self._environment.mask(self._server)
                raise DeletedExperiment(name, number, server, requests.Response())
            self._experiments[name] = number
        return self._experiments[name]

    def create_experiment(self, name: str) -> str:
        """Creates an experiment; returns its id."""
        return str(self._call("POST", "experiments/create", {"name": name})["experiment_id"])

    def experiment_tags(self, experiment_id: str) -> dict[str, str]:
        """The tags of an experiment."""
        answer = self._call("GET", "experiments/get", {"experiment_id": experiment_id})
        return _mapping(answer["experiment"].get("tags", []))

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Sets a tag of an experiment."""
        given = {"experiment_id": experiment_id, "key": key, "value": value}
        self._call("POST", "experiments/set-experiment-tag", given)

    def create_run(self, experiment_id: str, started: int, tags: Mapping[str, str], name: str) -> Run:
        """Opens a run that started at a time in milliseconds since 1970."""
        answer = self._call(
            "POST",
            "runs/create",
            {
                "experiment_id": experiment_id,
                "user_id": "unknown",  # as MLflow's client says
                "start_time": started,
                "tags": _pairs(tags),
                "run_name": name,
            },
        )
        return self._run(answer["run"])

    def get_run(self, run_id: str) -> Run:
        """A run."""
        return self._run(self._call("GET", "runs/get", {"run_id": run_id})["run"])

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        return dict(self.get_run(run_id).data.metrics)

    def history(self, run_id: str, key: str) -> list[Metric]:
        """The points of a curve of a run, at most 25,000 of them; none if the run has no such metric."""
        query = {"run_id": run_id, "metric_key": key}
        found = self._call("GET", "metrics/get-history", query).get("metrics", [])
        return [
            Metric(key, float(point["value"]), int(point.get("timestamp", 0)), int(point.get("step", 0)))
            for point in found
        ]

    def find_run(self, run_id: str) -> Run | None:
        """A run, also one in the trash; None if the server has none with this id."""
        try:
            return self.get_run(run_id)
        except Refused as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def version_tags(self, model: str, alias: str) -> dict[str, str] | None:
        """The tags of the version of a registered model that has an alias; None if there is none."""
        query = {"name": model, "alias": alias}
        try:
            answer = self._call("GET", "registered-models/alias", query)
        except Refused as error:
            # MLflow answers the second to a model that has no such alias.
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return _mapping(answer["model_version"].get("tags", []))

    def search_runs(
        self,
        experiment_id: str,
        condition: str,
        *,
        limit: int = 1000,
        newest_first: bool = False,
        deleted: bool = False,
    ) -> list[Run]:
        """The runs of an experiment that match an MLflow filter, at most `limit` of them, asked for in pages.

        Deleted runs are among them only if `deleted` is set.
        """
        query: dict[str, Any] = {
            "experiment_ids": [experiment_id],
            "filter": condition,
            "run_view_type": "ALL" if deleted else "ACTIVE_ONLY",
        }
        if newest_first:
            query["order_by"] = ["attributes.start_time DESC"]
        runs: list[Run] = []
        while len(runs) < limit:
            query["max_results"] = min(_PAGE, limit - len(runs))
            answer = self._call("POST", "runs/search", query)
            runs += [self._run(found) for found in answer.get("runs", [])]
            if not answer.get("next_page_token"):
                break
            query["page_token"] = answer["next_page_token"]
        return runs

    def log_batch(
        self,
        run_id: str,
        metrics: Iterable[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Logs up to 1000 points, and up to 100 parameters and tags."""
        points = [
            {"key": m.key, "value": _number(m.value), "timestamp": m.timestamp, "step": m.step}
            for m in metrics
        ]
        entries = {"metrics": points, "params": _pairs(params or {}), "tags": _pairs(tags or {})}
        self._call("POST", "runs/log-batch", {"run_id": run_id, **entries})

    def log_input(self, run_id: str, name: str, digest: str, source: str, tags: Mapping[str, str]) -> None:
        """Logs a data set that the run read, from a local source."""
        dataset = {"name": name, "digest": digest, "source_type": "local", "source": source}
        given = {"dataset": dataset, "tags": _pairs(tags)}
        self._call("POST", "runs/log-inputs", {"run_id": run_id, "datasets": [given]})

    def resume_run(self, run_id: str) -> None:
        """Marks a run that had ended as going on."""
        self._call("POST", "runs/update", {"run_id": run_id, "status": RUNNING})

    def end_run(self, run_id: str, status: str, time: int) -> None:
        """Ends a run: `FINISHED`, `FAILED` or `KILLED`, at a time in milliseconds since 1970."""
        self._call("POST", "runs/update", {"run_id": run_id, "status": status, "end_time": time})

    # --- artifacts

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Stores a text as an artifact, in UTF-8; `name` may have folders."""
        path = PurePosixPath(name)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path.name
            file.write_text(text, encoding="utf-8")
            self.log_artifact(run_id, file, "" if path.parent == PurePosixPath() else str(path.parent))

    def log_artifact(self, run_id: str, path: Path, folder: str = "") -> None:
        """Stores a file, or what is in a folder, under `folder` of the run's artifacts.

        Raises:
            FileNotFoundError: there is nothing at `path`.
        """
        root = self._proxied(run_id)
        if root is None:
            self._log_with_mlflow(run_id, path, folder)
            return
        if not path.is_dir():
            self._put(path, root / folder / path.name)
            return
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            self._put(file, root / folder / file.relative_to(path).as_posix())

    def list_artifacts(self, run_id: str, folder: str) -> list[str]:
        """The paths of the files directly in a folder of a run's artifacts; empty if there is none."""
        answer = self._call("GET", "artifacts/list", {"run_id": run_id, "path": folder})
        return [str(item["path"]) for item in answer.get("files", []) if not item.get("is_dir")]

    def read_artifact(self, run_id: str, path: str) -> bytes:
        """The content of a file among a run's artifacts; its listing says whether there is one."""
        root = self._proxied(run_id)
        if root is None:
            return self._read_with_mlflow(run_id, path)
        answer = self._session.get(
            f"{self._server}{_ARTIFACTS}/{quote(str(root / path))}", timeout=_TIMEOUT_SECONDS
        )
        if not answer.ok:
            raise _refusal(answer)
        return answer.content

    def _put(self, file: Path, target: PurePosixPath) -> None:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        with file.open("rb") as stream:
            answer = self._session.put(
                f"{self._server}{_ARTIFACTS}/{quote(str(target))}",
                data=stream,
                headers={"Content-Type": kind},
                timeout=_TIMEOUT_SECONDS,
            )
        if not answer.ok:
            raise _refusal(answer)

    def _proxied(self, run_id: str) -> PurePosixPath | None:
        """Where the server keeps a run's artifacts; None if it has its clients keep them."""
        if run_id not in self._artifact_uris:
            self.get_run(run_id)
        address = urlsplit(self._artifact_uris[run_id])
        if address.scheme != "mlflow-artifacts" or address.netloc:
            return None
        return PurePosixPath(address.path.lstrip("/"))

    def _log_with_mlflow(self, run_id: str, path: Path, folder: str) -> None:
        with self._mlflow() as client:
            send = client.log_artifacts if path.is_dir() else client.log_artifact
            send(run_id, str(path), folder or None)

    def _read_with_mlflow(self, run_id: str, path: str) -> bytes:
        with self._mlflow() as client, tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, path, folder)).read_bytes()

    @contextmanager
    def _mlflow(self) -> Iterator[Any]:
        """MLflow's client; its errors become `Refused`."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{_TIMEOUT_SECONDS:.0f}")
        hand_over_token(self._environment)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        try:
            yield MlflowClient(tracking_uri=self._environment.mlflow_uri)
        except MlflowException as error:
            raise Refused(str(error.error_code), str(error), requests.Response()) from error

    # --- HTTP

    def _call(self, method: str, path: str, values: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._session.request(
            method,
            f"{self._server}{_API}/{path}",
            params=values if method == "GET" else None,
            json=values if method == "POST" else None,
            timeout=_TIMEOUT_SECONDS,
        )
        if answer.status_code != 200:
            raise _refusal(answer)
        try:
            found = json.loads(
                answer.content.strip() or b"{}", object_hook=functools.partial(_Answer, answer)
            )
        except ValueError:
            found = None
        if not isinstance(found, _Answer):
            raise Refused("INTERNAL_ERROR", "the answer is not a JSON object", answer)
        return found

    def _run(self, found: Mapping[str, Any]) -> Run:
        info, data = found["info"], found.get("data", {})
        run_id = str(info["run_id"])
        self._artifact_uris[run_id] = str(info.get("artifact_uri", ""))
        return Run(
            RunInfo(
                run_id=run_id,
                experiment_id=str(info["experiment_id"]),
                run_name=str(info.get("run_name", "")),
                status=str(info.get("status", "")),
                start_time=int(info.get("start_time", 0)),
                end_time=int(info.get("end_time", 0)),
                artifact_uri=self._artifact_uris[run_id],
                lifecycle_stage=str(info.get("lifecycle_stage", "active")),
            ),
            RunData(
                _mapping(data.get("params", [])),
                _mapping(data.get("tags", [])),
                {entry["key"]: float(entry["value"]) for entry in data.get("metrics", [])},
            ),
        )


class _Answer(dict[str, Any]):
    """A JSON object of an answer; a field that it lacks is the server's fault, so it raises `Refused`."""

    def __init__(self, answer: requests.Response, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._answer = answer

    def __missing__(self, name: str) -> Any:
        raise Refused("INTERNAL_ERROR", f"no {name!r} in the answer; is this an MLflow server?", self._answer)


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _refusal(answer: requests.Response) -> Refused:
    try:
        found = answer.json()
    except requests.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        found = {"message": " ".join(answer.text.split())[:300] or f"status {answer.status_code}"}
    code = found.get("error_code") or _CODES.get(answer.status_code, "INTERNAL_ERROR")
    return Refused(str(code), str(found.get("message", f"status {answer.status_code}")), answer)


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _mapping(pairs: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair.get("value", "") for pair in pairs}


def _number(value: float) -> float | str:
    """A number as protobuf writes it in JSON, which has no word for those that are not finite."""
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
