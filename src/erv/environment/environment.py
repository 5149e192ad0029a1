"""Which servers this workspace talks to: their addresses and keys.

Everything local is in one ignored folder, `.erv/`. The addresses and keys of the servers are `ERV_*`
variables; those of the process override `.erv/stack.env`, which `erv stack up` writes.

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

from erv.errors import SettingsError

STATE = ".erv"
STACK_FILE = "stack.env"
CONNECTED_FILE = "connected.env"


# The keys that belong to the server at an address.
_KEYS_OF = {
    "ERV_MLFLOW_URI": ("ERV_MLFLOW_TOKEN",),
    "ERV_PREFECT_API_URL": ("ERV_PREFECT_AUTH_STRING", "ERV_PREFECT_API_KEY", "ERV_PREFECT_UI_URL"),
}

# Where DVC says which repository a queued experiment belongs to.
_ORIGINAL = "DVC_ROOT"


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
        """`connected.env`, written by `erv connect`: what it connected this clone to."""
        return self.state / CONNECTED_FILE

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


_REMEDY = "delete the file and run `erv stack up`"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_NAMES = tuple(item.name for item in fields(Environment) if item.name != "workspace")


def read_stack_file(path: Path, remedy: str = _REMEDY) -> dict[str, str]:
    """The `KEY=VALUE` lines of a `stack.env`; empty if there is no such file.

    Args:
        path: the file.
        remedy: what to do about a damaged one.

    Raises:
        SettingsError: the file can't be read, is not UTF-8, or a line is neither a comment nor `KEY=VALUE`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start}); {remedy}") from None
    except OSError as error:
        raise SettingsError(f"{path}: can't be read ({error.strerror}); {remedy}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier():
            raise SettingsError(f"{path}, line {number}: expected KEY=VALUE; {remedy}")
        if not value.isprintable():
            raise SettingsError(f"{path}, line {number}: {name} has an unprintable character; {remedy}")
        values[name] = value
    return values


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
    written = read_stack_file(file)
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
            where, remedy = ("the environment", "correct it") if variable in ours else (str(file), _REMEDY)
            raise SettingsError(f"{where}: {variable} {fault}; {remedy}")
    known = {name: values[f"ERV_{name.upper()}"] for name in _NAMES if values.get(f"ERV_{name.upper()}")}
    ambient = known.pop("s3_ambient", "0").lower() in ("1", "true", "yes")
    return Environment(workspace, s3_ambient=ambient, **known)


def written_file(workspace: Path, name: str, variables: Mapping[str, str]) -> Path:
    """A file of `.erv`; in a copy in which DVC runs an experiment, that of the original."""
    file = workspace / STATE / name
    original = variables.get(_ORIGINAL)
    return Path(original) / STATE / name if original and not file.exists() else file


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
