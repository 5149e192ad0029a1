"""Seeds, threads, device and precision: what makes two runs of the same inputs write the same bytes."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

from erv.errors import SettingsError

if TYPE_CHECKING:
    import torch


def seed_everything(seed: int, threads: int) -> None:
    """Seeds Python, NumPy and torch, fixes the CPU threads and asks torch for deterministic kernels.

    The thread count belongs to determinism: floating-point sums are split by it.

    Args:
        seed: any non-negative integer.
        threads: CPU threads that torch may use, at least 1.
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # cuBLAS is only deterministic with a fixed workspace; it reads this when the first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh buffers serves only code that reads what it never wrote; it took a quarter of a GRPO step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def resolve_device(device: str) -> torch.device:
    """Turns `runtime.device` into a torch device.

    Args:
        device: "auto" (a GPU when there is one), "cpu" or "cuda".

    Raises:
        SettingsError: "cuda" was asked for and torch sees no GPU.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("runtime.device is cuda, but torch sees no GPU here; use auto or cpu")
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device | str) -> torch.dtype:
    """Turns `runtime.dtype` into a torch dtype.

    Raises:
        SettingsError: half precision on a CPU, where it is slower and not what any result was checked with.
    """
    import torch

    if dtype != "float32" and torch.device(device).type == "cpu":
        raise SettingsError(f"runtime.dtype is {dtype}, which needs a GPU; use float32 on a CPU")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
