"""Which servers this workspace talks to, isolated from the servers that the user's shell points to.

Everything local is in one ignored folder, `.erv/`. The addresses and keys of the servers are `ERV_*`
variables; those of the process override `.erv/stack.env`, which `erv stack up` writes. The user's own
`AWS_*`, `MLFLOW_*` and `PREFECT_*` variables are never read: our processes and their children get their own.

pydantic-settings is left out on purpose: each `Environment(...)` would read the variables of the process,
and python-dotenv, which reads files for it, expands `${...}` in keys, cuts values at ` #` and skips damaged
lines.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from urllib.parse import urlsplit

from erv.errors import SettingsError

STATE = ".erv"
STACK_FILE = "stack.env"
CONNECTED_FILE = "connected.env"

# Variables of other tools that could send data to servers other than ours. The CA bundle stays: it says whom
# to trust, not where to connect. Prefect passes `PREFECT__` variables to the process of a flow run.
_FOREIGN = re.compile(r"^(AWS_(?!CA_BUNDLE$)|MLFLOW_|_MLFLOW_|PREFECT_(?!_))")

# The keys that belong to the server at an address.
_KEYS_OF = {
    "ERV_MLFLOW_URI": ("ERV_MLFLOW_TOKEN",),
    "ERV_PREFECT_API_URL": ("ERV_PREFECT_AUTH_STRING", "ERV_PREFECT_API_KEY", "ERV_PREFECT_UI_URL"),
}

# The variable that names each server.
_ADDRESS_OF = {"S3": "ERV_S3_ENDPOINT", "MLflow": "ERV_MLFLOW_URI", "Prefect": "ERV_PREFECT_API_URL"}

# How the names of each server's variables begin.
_PREFIX_OF = {"S3": "ERV_S3_", "MLflow": "ERV_MLFLOW_", "Prefect": "ERV_PREFECT_"}

# Where DVC says which repository a queued experiment belongs to.
_ORIGINAL = "DVC_ROOT"

# No tool sends telemetry, and nothing is looked up on a hub.
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


# Below this much room, in bytes, the folder for temporary files is taken to be full.
_TEMPORARY_BYTES = 64_000_000


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
    file = _written_file(workspace, STACK_FILE, variables)
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


def _written_file(workspace: Path, name: str, variables: Mapping[str, str]) -> Path:
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


def shared_servers(environment: Environment) -> tuple[str, ...]:
    """Which of S3, MLflow and Prefect are configured and not this workspace's own, in this order.

    Raises:
        SettingsError: `stack.env` is damaged.
    """
    written, used = read_stack_file(environment.stack_file), environment.variables()
    foreign = {
        server
        for server, variable in _ADDRESS_OF.items()
        if variable in used and used[variable] != written.get(variable)
    }
    if environment.has_storage and not environment.s3_endpoint and "ERV_S3_ENDPOINT" not in written:
        foreign.add("S3")  # Amazon's own
    return tuple(server for server in _ADDRESS_OF if server in foreign)


def is_shared(server: str, workspace: str | Path = ".") -> bool:
    """Whether S3, MLflow or Prefect, as this process is told to use it, isn't the workspace's own."""
    return server in shared_servers(load_environment(workspace))


def connection_lines(environment: Environment) -> list[str]:
    """What `erv connect` writes down of the servers that it has found good; of keys, the names alone."""
    secret = {f"ERV_{item.name.upper()}" for item in fields(Environment) if not item.repr}
    usual = Environment(environment.workspace).variables()
    return [
        f"{name}={'' if name in secret else value}"
        for name, value in environment.variables().items()
        if usual.get(name) != value
    ]


def unset_variables(environment: Environment) -> dict[str, str]:
    """The variables of the servers that this clone is connected to which are set nowhere now.

    Returns:
        Their values; keys, which only whoever runs the servers can tell, are empty.

    Raises:
        SettingsError: what `erv connect` has written is damaged.
    """
    file = _written_file(environment.workspace, CONNECTED_FILE, os.environ)
    known = read_stack_file(file, "delete the file and run `erv connect`")
    usual = Environment(environment.workspace).variables()
    given = {name for name, value in environment.variables().items() if usual.get(name) != value}
    return {name: value for name, value in known.items() if name not in given}


def connected_servers(environment: Environment) -> dict[str, str]:
    """The servers that this clone is connected to and that nothing names now, with their addresses."""
    lacking = unset_variables(environment)
    servers = {
        server: lacking.get(_ADDRESS_OF[server]) or "Amazon S3"
        for server, prefix in _PREFIX_OF.items()
        if _ADDRESS_OF[server] in lacking or (server == "S3" and any(n.startswith(prefix) for n in lacking))
    }
    if environment.has_storage:
        servers.pop("S3", None)
    return servers


def command_for(server: str, workspace: str | Path = ".") -> str:
    """The command that makes a server usable here, and delivers what waits for it.

    Where any server is shared, nothing is started that the user didn't ask for.
    """
    environment = load_environment(workspace)
    theirs = shared_servers(environment) or connected_servers(environment)
    return "erv connect" if theirs and not _is_own(server, workspace) else "erv stack up"


def remedy_for(server: str, workspace: str | Path = ".", own: str = "run `erv stack up`") -> str:
    """What to do about a server that is away or not named: `erv stack up` starts our own, but nobody else's.

    Args:
        server: S3, MLflow or Prefect.
        workspace: root of the repository.
        own: what to do about one of this workspace's own.
    """
    environment = load_environment(workspace)
    shared = shared_servers(environment)
    if server in shared:
        return f"check {_ADDRESS_OF[server]} and the server, then run `erv connect`"
    if address := connected_servers(environment).get(server):
        needed = _to_set(environment, server)
        return (
            f"this clone is connected to {server} at {address}: set {needed} in this shell"
            " (`erv connect` lists all that it lacks)"
        )
    if shared and not _is_own(server, workspace):
        return f"set {_ADDRESS_OF[server]} and run `erv connect`"
    return own


def _to_set(environment: Environment, server: str) -> str:
    """The variables of a server that this shell lacks; whose value isn't written down, by name alone."""
    return " and ".join(
        f"{name}={shlex.quote(value)}" if value else name
        for name, value in unset_variables(environment).items()
        if name.startswith(_PREFIX_OF[server])
    )


def _is_own(server: str, workspace: str | Path) -> bool:
    environment = load_environment(workspace)
    address = read_stack_file(environment.stack_file).get(_ADDRESS_OF[server])
    return address is not None and environment.variables().get(_ADDRESS_OF[server]) == address


def child_environment(environment: Environment, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a child process: the user's, without those that point elsewhere, plus ours.

    Args:
        environment: addresses and keys of our servers.
        base: variables to start from; by default those of this process.
    """
    base = os.environ if base is None else base
    keep_aws = environment.s3_ambient
    result = {
        name: value
        for name, value in base.items()
        if not _FOREIGN.match(name) or (keep_aws and name.startswith("AWS_"))
    }
    result.update(_QUIET)
    result.update(_aws_variables(environment))
    home = environment.stack / "prefect"
    result["PREFECT_HOME"] = str(home)
    result["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
    optional = {
        "MLFLOW_TRACKING_URI": environment.mlflow_uri,
        "MLFLOW_TRACKING_TOKEN": environment.mlflow_token,
        "MLFLOW_EXPERIMENT_NAME": environment.mlflow_experiment if environment.mlflow_uri else None,
        "PREFECT_API_URL": environment.prefect_api_url,
        "PREFECT_UI_URL": environment.prefect_ui_url,
        "PREFECT_API_AUTH_STRING": environment.prefect_auth_string,
        "PREFECT_API_KEY": environment.prefect_api_key,
    }
    result.update({name: value for name, value in optional.items() if value})
    if temporary := _roomy_temporary_folder(environment, result):
        result["TMPDIR"] = temporary
    # Our servers are on this machine: requests to them must not go through a proxy.
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in result.get(name, "").split(",") if host]
        result[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    return result


def _roomy_temporary_folder(environment: Environment, variables: Mapping[str, str]) -> str | None:
    """Our own folder for temporary files, if the usual one is full and ours has room; else None.

    Not always ours, because sockets need short paths.
    """
    ours = environment.state / "tmp"
    try:
        usual = variables.get("TMPDIR") or tempfile.gettempdir()
        if shutil.disk_usage(usual).free >= _TEMPORARY_BYTES:
            return None
        if shutil.disk_usage(environment.workspace).free < _TEMPORARY_BYTES:
            return None
        ours.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(ours)


def _aws_variables(environment: Environment) -> dict[str, str]:
    """Variables for tools that only understand `AWS_*`; they hide the user's own AWS files."""
    endpoint = {"AWS_ENDPOINT_URL_S3": environment.s3_endpoint or ""}
    if environment.s3_endpoint:
        endpoint["MLFLOW_S3_ENDPOINT_URL"] = environment.s3_endpoint
    else:
        endpoint = {}
    if environment.s3_ambient:
        return endpoint
    values = {
        # Our own files, which may not exist: boto then reads no configuration from the home directory.
        "AWS_CONFIG_FILE": str(environment.stack / "aws" / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(environment.stack / "aws" / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": environment.s3_region,
        "AWS_REGION": environment.s3_region,
        "AWS_ACCESS_KEY_ID": environment.s3_access_key,
        "AWS_SECRET_ACCESS_KEY": environment.s3_secret_key,
        "AWS_SESSION_TOKEN": environment.s3_session_token,
    }
    return {**endpoint, **{name: value for name, value in values.items() if value}}


def isolate(environment: Environment) -> None:
    """Sets the variables of `child_environment` in this process; call it before importing any tool."""
    wanted = child_environment(environment)
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    if wanted.get("TMPDIR") != os.environ.get("TMPDIR"):
        tempfile.tempdir = None  # it keeps the folder that it found first
    os.environ.update(wanted)


def keep_private(environment: Environment) -> None:
    """Closes `.erv` to other users: it holds keys, databases and objects.

    In a repository the folder is created, so that nothing else creates it with the usual rights. One that an
    older version left open is closed, and so is everything the servers have in it.

    Raises:
        SettingsError: it can't be closed, because it belongs to another user or can't be written to.
    """
    state = environment.state
    if not state.is_dir():
        if not (environment.workspace / "dvc.yaml").is_file():
            return
        state.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(state.stat().st_mode) & 0o077 == 0:
        return
    try:
        state.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"{state} is open to others and can't be closed ({error.strerror}); use a workspace of your own"
        ) from error
    # Someone may still be inside the folder, in a shell that was opened before.
    for folder, _, files in os.walk(environment.stack):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            with contextlib.suppress(OSError):  # removed meanwhile by a running server
                if not path.is_symlink():
                    path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def hand_over_token(environment: Environment) -> None:
    """Gives MLflow's client in this process the key of our server; its only other way is a file."""
    if environment.mlflow_token:
        os.environ["MLFLOW_TRACKING_TOKEN"] = environment.mlflow_token


def silence_telemetry() -> None:
    """Switches off the telemetry of all tools in this process; the user's other variables stay."""
    os.environ.update(_QUIET)


def shell_lines(environment: Environment, base: Mapping[str, str] | None = None) -> list[str]:
    """Lines for `eval "$(erv stack env)"`: first unset the user's variables, then export ours."""
    base = os.environ if base is None else base
    child = child_environment(environment, base)
    gone = sorted(name for name in base if name not in child)
    ours = {name: value for name, value in child.items() if base.get(name) != value}
    ours.update(environment.variables())
    lines = [f"unset {name}" for name in gone]
    return lines + [f"export {name}={shlex.quote(value)}" for name, value in sorted(ours.items())]
