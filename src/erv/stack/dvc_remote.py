"""DVC's remote: lets a plain `dvc push` in any shell reach our store, and only ours.

`.dvc/config` (in git) names the remote; `.dvc/config.local` (ignored by git, readable only by the user) gets
its address and key from here. The remote has its own AWS profile in our own files, because boto refuses to
work if the shell's `AWS_PROFILE` names a profile that it can't find.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from erv.environment import Environment

REMOTE = "erv"
_PROFILE = "erv"
_SECTION = f'remote "{REMOTE}"'


def write_dvc_remote(environment: Environment) -> None:
    """Writes the remote's part of `.dvc/config.local`; does nothing outside a DVC repository.

    Other settings in that file are kept. Call it wherever `dvc` will be used: `erv stack up` calls it for
    this machine, a worker elsewhere for its checkout.
    """
    folder = environment.workspace / ".dvc"
    if not folder.is_dir() or not environment.has_storage:
        return
    section: dict[str, Any] = {"url": f"s3://{environment.dvc_bucket}", "region": environment.s3_region}
    if environment.s3_endpoint:
        section["endpointurl"] = environment.s3_endpoint
    if not environment.s3_ambient:
        profile, credentials = _write_profile(environment)
        section["access_key_id"] = environment.s3_access_key
        section["secret_access_key"] = environment.s3_secret_key
        if environment.s3_session_token:
            section["session_token"] = environment.s3_session_token
        section.update(profile=_PROFILE, configpath=str(profile), credentialpath=str(credentials))
    _update(folder / "config.local", section)


def _write_profile(environment: Environment) -> tuple[Path, Path]:
    """Writes our profile to both AWS files, so that a shell that redirects one of them still finds it."""
    config, credentials = environment.stack / "aws" / "config", environment.stack / "aws" / "credentials"
    keys = [
        f"aws_access_key_id = {environment.s3_access_key}",
        f"aws_secret_access_key = {environment.s3_secret_key}",
    ]
    if environment.s3_session_token:
        keys.append(f"aws_session_token = {environment.s3_session_token}")
    region = f"region = {environment.s3_region}"
    write_private(config, "\n".join([f"[profile {_PROFILE}]", region, ""]))
    write_private(credentials, "\n".join([f"[{_PROFILE}]", *keys, ""]))
    return config, credentials


def _update(path: Path, section: dict[str, Any]) -> None:
    # The library that DVC itself reads its configuration with.
    from configobj import ConfigObj  # type: ignore[import-untyped]

    config = ConfigObj(str(path) if path.exists() else None)
    config[_SECTION] = section
    config.filename = None
    write_private(path, "\n".join(config.write() or []) + "\n")


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
