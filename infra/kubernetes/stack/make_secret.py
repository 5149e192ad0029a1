"""Writes `secret.env` with fresh secrets, readable by its owner only: the Secret `erv` of kustomization.yaml.

Command: `python make_secret.py` in infra/kubernetes/stack (standard library only). An existing file is left
alone: the existing databases use its passwords.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# As in ../../compose/.env.example, where what Prefect asks for is put together from user and password.
NAMES = (
    *("POSTGRES_PASSWORD", "MLFLOW_DB_PASSWORD", "PREFECT_DB_PASSWORD", "REDIS_PASSWORD"),
    *("ERV_S3_ACCESS_KEY", "ERV_S3_SECRET_KEY", "ERV_MLFLOW_TOKEN", "ERV_PREFECT_AUTH_STRING"),
)
_PREFIX = {"ERV_PREFECT_AUTH_STRING": "erv:"}


def content() -> str:
    """A line per secret. Letters and digits only: some of them become part of a URL."""
    return "".join(f"{name}={_PREFIX.get(name, '')}{secrets.token_hex(24)}\n" for name in NAMES)


def main(folder: Path = HERE) -> int:
    """Writes the file; returns the exit code, 1 if it exists already."""
    target = folder / "secret.env"
    try:
        # O_EXCL: the check and the creation are one step; the mode holds from the first byte on.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"error: {target} exists; edit it, or remove it together with the volumes\n")
        return 1
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content())
    sys.stdout.write(f"wrote {target}; keep a copy where only you can read it\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
