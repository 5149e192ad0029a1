"""Whether the servers answer, take the keys and do their work, and what still waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING

from erv.doctor.finding import Finding
from erv.environment import Environment, command_for, remedy_for, shared_servers
from erv.errors import StackError, StorageError

if TYPE_CHECKING:
    from erv.stack.background import ServiceError


def storage(environment: Environment) -> Iterator[Finding]:
    """The object store and its three buckets."""
    from erv.storage.store import open_store

    try:
        store = open_store(environment, patient=False)
        versioned = store.versioned(environment.raw_bucket)
        for bucket in (environment.raw_bucket, environment.dvc_bucket, environment.artifact_bucket):
            store.list(f"s3://{bucket}/.doctor")
    except StorageError as error:
        sentence, _, remedy = str(error).partition("; ")
        yield Finding("storage", "fail", sentence, remedy)
        return
    where = environment.s3_endpoint or "Amazon S3"
    if versioned:
        yield Finding("storage", "ok", f"{where} accepts the key, all three buckets are there")
    else:
        detail = f"bucket {environment.raw_bucket} does not keep versions"
        yield Finding(
            "storage", "warn", detail, "turn versioning on, or a raw file can change after it was pinned"
        )


def tracking(environment: Environment) -> Iterator[Finding]:
    """The MLflow server."""
    if environment.mlflow_uri is None:
        remedy = remedy_for("MLflow", environment.workspace)
        yield Finding("tracking", "warn", "no MLflow server is configured, runs are not tracked", remedy)
        return
    address = f"{environment.mlflow_uri}/version"
    yield _server(
        environment, "tracking", "MLflow", environment.mlflow_uri, address, environment.mlflow_headers
    )


def orchestration(environment: Environment) -> Iterator[Finding]:
    """The Prefect server."""
    if environment.prefect_api_url is None:
        remedy = remedy_for("Prefect", environment.workspace)
        detail = "no Prefect server is configured"
        yield Finding("prefect", "warn", detail, f"{remedy}; `dvc repro` needs none")
        return
    url = environment.prefect_api_url
    yield _server(environment, "prefect", "Prefect", url, f"{url}/admin/version", environment.prefect_headers)


def _server(
    environment: Environment, name: str, title: str, url: str, address: str, headers: Mapping[str, str]
) -> Finding:
    from erv.stack.reach import server_version

    try:
        version = server_version(title, url, address, headers, environment.workspace)
    except StackError as error:
        sentence, _, remedy = str(error).partition("; ")
        return Finding(name, "fail", sentence, remedy)
    expected = metadata.version(title.lower())
    if version != expected:
        detail = f"{title} at {url} is {version}, the client {expected}"
        return Finding(name, "warn", detail, "use equal versions")
    return Finding(name, "ok", f"{title} {version} at {url}")


def background(environment: Environment) -> Iterator[Finding]:
    """What fails in our Prefect server without a request, so that only its log tells."""
    from erv.stack.background import service_errors

    if environment.prefect_api_url is None or "Prefect" in shared_servers(environment):
        return
    log = environment.stack / "logs" / "prefect.log"
    for error in service_errors(log, datetime.now()):
        detail = f"Prefect's service {error.service} failed {_how_often(error)}: {error.reason}"
        start = command_for("Prefect", environment.workspace)
        remedy = f"`make install`, then `erv stack down` and `{start}`; the log is {log}"
        # Once or twice may be a busy disk.
        yield Finding("background", "fail" if error.count > 2 else "warn", detail, remedy)


def _how_often(error: ServiceError) -> str:
    if error.count == 1:
        return f"once in the last hour, at {error.last:%H:%M}"
    times = f"{error.count} times in the last hour"
    return f"{times}, first at {error.first:%H:%M} and last at {error.last:%H:%M}"


def spool(environment: Environment) -> Iterator[Finding]:
    """Runs that MLflow doesn't have yet."""
    from erv.tracking.delivery import waiting

    count = waiting(environment)
    if count:
        runs = "1 run of a finished stage is" if count == 1 else f"{count} runs of finished stages are"
        detail = f"{runs} not yet complete in MLflow"
        remedy = f"`{command_for('MLflow', environment.workspace)}` delivers {'it' if count == 1 else 'them'}"
        yield Finding("spool", "warn", detail, remedy)
