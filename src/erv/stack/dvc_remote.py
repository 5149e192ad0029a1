"""DVC's remote: lets a plain `dvc push` in any shell reach our store, and only ours.

`.dvc/config` (in git) names the remote; `.dvc/config.local` (ignored by git, readable only by the user) gets
its address and key from here. The remote has its own AWS profile in our own files, because boto refuses to
work if the shell's `AWS_PROFILE` names a profile that it can't find.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from erv.environment import Environment, command_for, remedy_for
from erv.errors import StackError

REMOTE = "erv"
KEYS_FOLDER = "aws"  # below .erv/stack
_PROFILE = "erv"
_SECTION = f'remote "{REMOTE}"'
# All that we ever write, so that one that is no longer wanted is seen.
_SETTINGS = (
    *("url", "endpointurl", "region", "verify", "access_key_id", "secret_access_key", "session_token"),
    *("profile", "configpath", "credentialpath"),
)


def write_dvc_remote(environment: Environment) -> None:
    """Writes the remote's part of `.dvc/config.local`; does nothing outside a DVC repository.

    Other settings in that file are kept. Call it wherever `dvc` will be used: `erv stack up` calls it for
    this machine, a worker elsewhere for its checkout.
    """
    folder = environment.workspace / ".dvc"
    if not folder.is_dir() or not environment.has_storage:
        return
    for path, text in _profile(environment).items():
        write_private(path, text)
    update_config(folder / "config.local", _section(environment))
    _verify_default(folder)


def remote_without_keys(environment: Environment) -> str | None:
    """A sentence if DVC's remote is our store, as `.dvc/config.local` says, and this process can't use that.

    A plain `dvc push` could: the keys are in that file. None if nothing is written there, or all is well.

    Raises:
        StackError: `.dvc/config.local` is damaged.
    """
    folder = environment.workspace / ".dvc"
    written = read_dvc_config(folder / "config.local").get(_SECTION, {})
    if environment.has_storage or "url" not in written or default_remote(folder) != REMOTE:
        return None
    address = written.get("endpointurl") or "Amazon S3"
    return (
        f"DVC's remote is {written['url']} at {address}, as .dvc/config.local says, but no ERV_S3_* variables"
        f" name a store, so outputs would stay here; {remedy_for('S3', environment.workspace)}"
    )


def stores(environment: Environment) -> bool:
    """Whether a push has somewhere to go: our store, or a default remote of the user's own."""
    return environment.has_storage or default_remote(environment.workspace / ".dvc") not in (None, REMOTE)


def default_remote(folder: Path) -> str | None:
    """The remote that a plain `dvc push` uses; None if there is none.

    Args:
        folder: `.dvc`.
    """
    names = [
        read_dvc_config(folder / name).get("core", {}).get("remote") for name in ("config.local", "config")
    ]
    return next((str(name) for name in names if name), None)


def stale_settings(environment: Environment) -> tuple[str, ...]:
    """What `write_dvc_remote` would change, as names of the remote's settings; values may be secrets.

    Raises:
        StackError: `.dvc/config.local` is damaged.
    """
    written = read_dvc_config(environment.workspace / ".dvc" / "config.local").get(_SECTION, {})
    wanted = _section(environment)
    stale = [name for name in _SETTINGS if written.get(name) != wanted.get(name)]
    for path, text in _profile(environment).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(f"its profile in {path.relative_to(environment.workspace)}")
    return tuple(stale)


def _section(environment: Environment) -> dict[str, str]:
    """The remote's part of `.dvc/config.local`."""
    section = {"url": f"s3://{environment.dvc_bucket}", "region": environment.s3_region}
    section["verify"] = "True"  # hash what is fetched: DVC trusts the names of a remote's objects otherwise
    if environment.s3_endpoint:
        section["endpointurl"] = environment.s3_endpoint
    if not environment.s3_ambient:
        section["access_key_id"] = environment.s3_access_key or ""
        section["secret_access_key"] = environment.s3_secret_key or ""
        if environment.s3_session_token:
            section["session_token"] = environment.s3_session_token
        config, credentials = _profile_paths(environment)
        section.update(profile=_PROFILE, configpath=str(config), credentialpath=str(credentials))
    return section


def _profile_paths(environment: Environment) -> tuple[Path, Path]:
    folder = environment.stack / KEYS_FOLDER
    return folder / "config", folder / "credentials"


def _profile(environment: Environment) -> dict[Path, str]:
    """Our profile in both AWS files, so that a shell that redirects one of them still finds it."""
    if environment.s3_ambient:
        return {}
    config, credentials = _profile_paths(environment)
    keys = [
        f"aws_access_key_id = {environment.s3_access_key}",
        f"aws_secret_access_key = {environment.s3_secret_key}",
    ]
    if environment.s3_session_token:
        keys.append(f"aws_session_token = {environment.s3_session_token}")
    region = f"region = {environment.s3_region}"
    return {
        config: "\n".join([f"[profile {_PROFILE}]", region, ""]),
        credentials: "\n".join([f"[{_PROFILE}]", *keys, ""]),
    }


def read_dvc_config(path: Path) -> Any:
    """A configuration file of DVC, sections by name; empty if there is no such file.

    Raises:
        StackError: the file is damaged.
    """
    # The library that DVC itself reads its configuration with.
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]

    writer = command_for("S3", path.parent.parent)
    remedy = "restore it from git" if path.name == "config" else f"delete it and run `{writer}`"
    try:
        config = ConfigObj(path.read_text(encoding="utf-8").splitlines() if path.exists() else None)
    except (ConfigObjError, UnicodeDecodeError) as error:
        raise StackError(f"{path}: damaged ({' '.join(str(error).split())}); {remedy}") from None
    outside = [name for name, value in config.items() if not isinstance(value, dict)]
    if outside:
        raise StackError(f"{path}: damaged ({outside[0]} is in no section); {remedy}")
    return config


def update_config(path: Path, values: dict[str, Any], section: str = _SECTION) -> None:
    """Writes a section of a file of DVC's settings; others in it are kept.

    Raises:
        StackError: the file is damaged.
    """
    config = read_dvc_config(path)
    config[section] = values
    config.filename = None
    write_private(path, "\n".join(config.write() or []) + "\n")


def _verify_default(folder: Path) -> None:
    """Has DVC hash what it fetches from the user's own default remote, unless its section says otherwise."""
    shared, local = read_dvc_config(folder / "config"), read_dvc_config(folder / "config.local")
    name = local.get("core", {}).get("remote") or shared.get("core", {}).get("remote")
    section = f'remote "{name}"'
    if name in (None, REMOTE) or any("verify" in config.get(section, {}) for config in (shared, local)):
        return
    update_config(folder / "config.local", {**local.get(section, {}), "verify": True}, section)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only the user can read, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
