"""The GPUs of this machine that torch can use."""

from __future__ import annotations

import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A device: its name and its memory in bytes."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Accelerator:
    """What torch sees: its own version, whether it was built for CUDA, the devices, bfloat16 support."""

    torch: str
    cuda_build: bool
    gpus: tuple[Gpu, ...]
    bfloat16: bool

    @property
    def why_none(self) -> str:
        """Why there is no device."""
        return "torch sees none" if self.cuda_build else f"torch {self.torch} is a build without CUDA"


def see_accelerator() -> Accelerator:
    """What torch sees on this machine; imports torch."""
    import torch

    cuda = torch.version.cuda is not None
    if not torch.cuda.is_available():
        return Accelerator(torch.__version__, cuda, (), bfloat16=False)
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    gpus = tuple(Gpu(device.name, device.total_memory) for device in devices)
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return Accelerator(torch.__version__, cuda, gpus, bfloat16)


def installed_gpus() -> tuple[Gpu, ...]:
    """The GPUs that `see_accelerator` finds; without NVIDIA's driver, none, and torch is not imported."""
    return see_accelerator().gpus if shutil.which("nvidia-smi") else ()
