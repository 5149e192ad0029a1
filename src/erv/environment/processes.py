"""Our processes and their children, isolated from the servers that the user's shell points to.

The user's own `AWS_*`, `MLFLOW_*` and `PREFECT_*` variables are never read: our processes get their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from erv.environment.environment import Environment
from erv.errors import SettingsError

# Variables of other tools that could send data to servers other than ours. The CA bundle stays: it says whom
# to trust, not where to connect. Prefect passes `PREFECT__` variables to the process of a flow run.
_FOREIGN = re.compile(r"^(AWS_(?!CA_BUNDLE$)|MLFLOW_|_MLFLOW_|PREFECT_(?!_))")

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
