"""Which servers this workspace talks to: their addresses and keys.

Everything local is in one ignored folder, `.erv/`. The addresses and keys of the servers are `ERV_*`
variables; those of the process override `.erv/stack.env`, which `erv stack up` writes. In a clone that
`erv connect` has connected to servers of others, that file is kept and not read.

pydantic-settings is left out on purpose: each `Environment(...)` would read the variables of the process,
and python-dotenv, which reads files for it, expands `${...}` in keys, cuts values at ` #` and skips damaged
lines.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from erv.environment.written import (
    CONNECTED_FILE,
    LEFT_FILE,
    STACK_FILE,
    STACK_REMEDY,
    STATE,
    is_connected,
    read_stack_file,
    written_file,
)
from erv.errors import SettingsError

# The keys that belong to the server at an address.
_KEYS_OF = {
    "ERV_MLFLOW_URI": ("ERV_MLFLOW_TOKEN",),
    "ERV_PREFECT_API_URL": ("ERV_PREFECT_AUTH_STRING", "ERV_PREFECT_API_KEY", "ERV_PREFECT_UI_URL"),
}


@dataclass(frozen=True)
class Environment:
    """Addresses, buckets and keys. `None` means not configured.

    Attributes:
        workspace: absolute path of the root of the repository.
        s3_endpoint: URL of the S3 server; `None` with keys set means Amazon's own.
        s3_ambient: whether to take credentials from AWS's own chain (profile, role) instead of our keys. Only
            with this setting (`ERV_S3_AMBIENT=1`) do we use the user's `AWS_*` variables.
        mlflow_uri: URL of the MLflow server.
        mlflow_token: what the MLflow server asks for, as a bearer token or as the password of any user.
        prefect_api_url: URL of the Prefect server, ending in `/api`.
        prefect_auth_string: what a Prefect server of our own asks for (`user:password`).
        prefect_api_key: what Prefect Cloud asks for.
        notify_url: where Prefect posts news of failures and champions once `erv run --deploy` has set it up.
    """

    workspace: Path
    s3_endpoint: str | None = None
    s3_access_key: str | None = field(default=None, repr=False)
    s3_secret_key: str | None = field(default=None, repr=False)
    s3_session_token: str | None = field(default=None, repr=False)
    s3_region: str = "us-east-1"
    s3_ambient: bool = False
    raw_bucket: str = "erv-raw"
    dvc_bucket: str = "erv-dvc"
    artifact_bucket: str = "erv-mlflow"
    mlflow_uri: str | None = None
    mlflow_token: str | None = field(default=None, repr=False)
    mlflow_experiment: str = "erv"
    prefect_api_url: str | None = None
    prefect_auth_string: str | None = field(default=None, repr=False)
    prefect_api_key: str | None = field(default=None, repr=False)
    prefect_ui_url: str | None = None
    notify_url: str | None = field(default=None, repr=False)

    @property
    def state(self) -> Path:
        """The folder for everything local: `<workspace>/.erv`."""
        return self.workspace / STATE

    @property
    def stack(self) -> Path:
        """The folder of the local servers."""
        return self.state / "stack"

    @property
    def stack_file(self) -> Path:
        """`stack.env`, written by `erv stack up`."""
        return self.state / STACK_FILE

    @property
    def connected_file(self) -> Path:
        """`connected.env`, written by `erv connect`: what it connected this clone to.

        A clone is connected as long as it is there.
        """
        return self.state / CONNECTED_FILE

    @property
    def left_file(self) -> Path:
        """What `connected.env` becomes when `erv stack up --own` gives the clone a stack of its own."""
        return self.state / LEFT_FILE

    @property
    def has_storage(self) -> bool:
        """Whether an object store is configured."""
        return self.s3_ambient or bool(self.s3_access_key and self.s3_secret_key)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must not appear in any log, tag or parameter."""
        values = (
            *(self.s3_secret_key, self.s3_session_token, self.mlflow_token),
            *(self.prefect_auth_string, self.prefect_api_key, self.notify_url),
        )
        return tuple(value for value in values if value)

    @property
    def mlflow_headers(self) -> dict[str, str]:
        """The headers that a request to the MLflow server needs."""
        return {"Authorization": f"Bearer {self.mlflow_token}"} if self.mlflow_token else {}

    @property
    def prefect_headers(self) -> dict[str, str]:
        """The headers that a request to the Prefect server needs."""
        if self.prefect_auth_string:
            encoded = base64.b64encode(self.prefect_auth_string.encode()).decode()
            return {"Authorization": f"Basic {encoded}"}
        return {"Authorization": f"Bearer {self.prefect_api_key}"} if self.prefect_api_key else {}

    def mask(self, text: str) -> str:
        """`text` without our secrets and without passwords in URLs."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return re.sub(r"(\w+://[^\s:/@]*):[^\s/@]+@", r"\1:***@", text)

    def variables(self) -> dict[str, str]:
        """The `ERV_*` variables that describe this environment, as written to `stack.env`."""
        names = {f"ERV_{name.upper()}": getattr(self, name) for name in _NAMES}
        return {
            name: ("1" if value is True else str(value))
            for name, value in names.items()
            if value not in (None, False)
        }


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_NAMES = tuple(item.name for item in fields(Environment) if item.name != "workspace")


def load_environment(workspace: str | Path = ".", process: Mapping[str, str] | None = None) -> Environment:
    """The environment of a workspace.

    A copy of the repository in which DVC runs a queued experiment has the servers of its original.

    Args:
        workspace: root of the repository.
        process: variables that override `stack.env`; by default those of this process.

    Raises:
        SettingsError: `stack.env` is damaged, or a value is not what its name says.
    """
    workspace = Path(workspace).resolve()
    variables = os.environ if process is None else process
    file = written_file(workspace, STACK_FILE, variables)
    written = {} if is_connected(workspace, variables) else read_stack_file(file)
    return _environment(workspace, file, written, variables)


def own_environment(workspace: str | Path = ".") -> Environment:
    """That of the workspace's own servers as `erv stack up` wrote it, whatever this process names.

    A clone that is connected to servers of others doesn't use them, and keeps them.

    Raises:
        SettingsError: `stack.env` is damaged, or a value is not what its name says.
    """
    workspace = Path(workspace).resolve()
    file = workspace / STATE / STACK_FILE
    return _environment(workspace, file, read_stack_file(file), {})


def named_environment(workspace: str | Path = ".") -> Environment:
    """What the `ERV_*` variables of this process name by themselves, without servers of our own.

    Raises:
        SettingsError: a value is not what its name says.
    """
    workspace = Path(workspace).resolve()
    return _environment(workspace, workspace / STATE / STACK_FILE, {}, os.environ)


def _environment(
    workspace: Path, file: Path, written: dict[str, str], variables: Mapping[str, str]
) -> Environment:
    ours = {k: v for k, v in variables.items() if k.startswith("ERV_")}
    for address, keys in _KEYS_OF.items():
        # The keys of our own servers must not reach another server that the process names.
        if ours.get(address, written.get(address)) != written.get(address):
            for key in keys:
                written.pop(key, None)
    values = {**written, **ours}
    for name in _NAMES:
        variable = f"ERV_{name.upper()}"
        fault = _fault(name, values.get(variable, ""))
        if fault is not None:
            where, remedy = (
                ("the environment", "correct it") if variable in ours else (str(file), STACK_REMEDY)
            )
            raise SettingsError(f"{where}: {variable} {fault}; {remedy}")
    known = {name: values[f"ERV_{name.upper()}"] for name in _NAMES if values.get(f"ERV_{name.upper()}")}
    ambient = known.pop("s3_ambient", "0").lower() in ("1", "true", "yes")
    return Environment(workspace, s3_ambient=ambient, **known)


def _fault(name: str, value: str) -> str | None:
    """What is wrong with a value, in words that follow the variable's name; None if nothing is."""
    if name.endswith("_bucket") and value and not _BUCKET.fullmatch(value):
        return "is not the name of a bucket"
    if name == "s3_region" and value and not re.fullmatch(r"[A-Za-z0-9-]+", value):
        return "is not the name of a region"
    if not name.endswith(("_endpoint", "_uri", "_url")):
        return None
    try:
        address = urlsplit(value)
        port, host = address.port, address.hostname
    except ValueError as error:
        return f"is not an address ({error})"
    if any(letter.isspace() for letter in value) or (address.scheme in ("http", "https") and not host):
        return "is not an address"
    return "is an address with port 0" if port == 0 else None
