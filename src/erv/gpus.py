"""The GPUs of this machine, told without importing torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from erv.errors import DataError


@dataclass(frozen=True)
class Gpu:
    """A device: its name and its memory in bytes."""

    name: str
    memory_bytes: int


def installed_gpus() -> list[Gpu]:
    """What `nvidia-smi` lists; nothing where there is no such program or no driver answers it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(said.stdout) if said.returncode == 0 else []


def parse_gpus(listing: str) -> list[Gpu]:
    """GPUs from lines `name, MiB`.

    Raises:
        DataError: a line is something else.
    """
    gpus = []
    for line in filter(str.strip, listing.splitlines()):
        name, _, mebibytes = line.rpartition(",")
        if not name or not mebibytes.strip().isdigit():
            raise DataError(f"nvidia-smi lists {line.strip()!r}; expected a name and its memory in MiB")
        gpus.append(Gpu(name.strip(), int(mebibytes) * 2**20))
    return gpus
