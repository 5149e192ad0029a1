"""The GPUs of this machine: what the driver lists, in milliseconds, and what torch can use."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from erv.errors import DataError


@dataclass(frozen=True)
class Gpu:
    """A device: its name and its memory in bytes."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Accelerator:
    """What torch sees: its own version, whether it was built for CUDA, the devices, bfloat16."""

    torch: str
    cuda_build: bool
    gpus: tuple[Gpu, ...]
    bfloat16: bool

    @property
    def why_none(self) -> str:
        """Why there is no device."""
        return "torch sees none" if self.cuda_build else f"torch {self.torch} is a build without CUDA"


def see_accelerator() -> Accelerator:
    """What torch sees on this machine; imports it."""
    import torch

    cuda = torch.version.cuda is not None
    if not torch.cuda.is_available():
        return Accelerator(torch.__version__, cuda, (), bfloat16=False)
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    gpus = tuple(Gpu(device.name, device.total_memory) for device in devices)
    return Accelerator(torch.__version__, cuda, gpus, torch.cuda.is_bf16_supported())


def installed_gpus() -> list[Gpu]:
    """What `nvidia-smi` lists of what CUDA_VISIBLE_DEVICES leaves; nothing without program or driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return visible_gpus(parse_gpus(said.stdout)) if said.returncode == 0 else []


def visible_gpus(gpus: list[Gpu]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves: by number, or so many as it names otherwise (UUIDs)."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return gpus
    entries = [entry.strip() for entry in named.split(",") if entry.strip()]
    if all(entry.isdigit() for entry in entries):
        return [gpus[int(entry)] for entry in entries if int(entry) < len(gpus)]
    return gpus[: len(entries)]


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
