"""Writes `.env` from `.env.example` with fresh secrets, readable by its owner only.

Command: `python make_env.py` in infra/compose (standard library only). An existing `.env` is left alone: the
existing databases use its passwords.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
_EMPTY_SECRET = re.compile(r"^(\w+(?:_PASSWORD|_KEY|_TOKEN))=$", re.MULTILINE)


def fill(example: str) -> str:
    """`example` with a random value, letters and digits only, for each empty password, key and token."""
    return _EMPTY_SECRET.sub(lambda match: f"{match[1]}={secrets.token_hex(24)}", example)


def main(folder: Path = HERE) -> int:
    """Writes the file; returns the exit code, 1 if it exists already."""
    target = folder / ".env"
    try:
        # O_EXCL: the check and the creation are one step; the mode holds from the first byte on.
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.stderr.write(f"error: {target} exists; edit it, or remove it together with the volumes\n")
        return 1
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(fill((folder / ".env.example").read_text(encoding="utf-8")))
    sys.stdout.write(f"wrote {target}; now set ERV_WORKSPACE in it\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
