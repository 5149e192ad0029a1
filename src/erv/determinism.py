"""Code, seeds, threads, device and precision: what makes two runs with equal inputs write equal bytes."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.errors import SettingsError
from erv.files import sha256_of

if TYPE_CHECKING:
    import torch


PACKAGE = "src/erv"
_CODE = (f"{PACKAGE}/", "stages/", "data/label_spaces")


def code_of(stage: str) -> tuple[str, ...]:
    """The code that decides what a stage writes, as its `deps` in `dvc.yaml` name it, and nothing else does.

    Args:
        stage: as in `dvc.yaml`, or one of its matrix such as `grpo@erv`.

    Returns:
        Workspace paths of the stage's script, of rooms and modules below `src/erv`, and of your own label
        spaces. The whole package if the working folder has no `dvc.yaml` with that stage.
    """
    import yaml

    try:
        stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
        dependencies = stages[stage.partition("@")[0]]["deps"]
    except (FileNotFoundError, KeyError):
        return (PACKAGE,)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    # Of what differs within a matrix, the folder counts.
    code = [path.partition("/${item.")[0] for path in dependencies if path.startswith(_CODE)]
    return tuple(re.sub(r"\$\{([\w.]+)\}", lambda match: _parameter(params, match[1]), path) for path in code)


def _parameter(params: Mapping[str, Any], name: str) -> str:
    for part in name.split("."):
        params = params[part]
    return str(params)


def code_version(code: Sequence[str], libraries: Sequence[str]) -> str:
    """What computes: the content of our code and the versions of the libraries below it, as JSON.

    Args:
        code: from `code_of`; what lies below `src/erv` is read from the package that is imported, wherever it
            is installed, the rest from the working folder.
        libraries: names of distributions.
    """
    parts = {path: sha256_of(_installed(path)) for path in code}
    for library in libraries:
        try:
            parts[library] = version(library)
        except PackageNotFoundError:
            parts[library] = "absent"
    return json.dumps(parts, sort_keys=True)


def _installed(path: str) -> Path:
    if path == PACKAGE or path.startswith(f"{PACKAGE}/"):
        return Path(__file__).parent / Path(path).relative_to(PACKAGE)
    return Path(path)


def prepare_process(seed: int, threads: int) -> None:
    """What every stage starts with: threads of the numeric libraries, which read these once, and seeds.

    Args:
        seed: any non-negative integer.
        threads: CPU threads, at least 1; sums are split by them.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    random.seed(seed)
    import numpy

    numpy.random.seed(seed % 2**32)


def seed_everything(seed: int, threads: int) -> None:
    """Seeds Python, NumPy and torch, fixes the CPU threads and asks torch for deterministic kernels.

    The thread count matters for determinism, because floating-point sums are split by it.

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
    # Filling fresh buffers only helps code that reads what it never wrote; it took a quarter of a GRPO step.
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
        SettingsError: half precision on a CPU, where it is slower and no result was checked with it.
    """
    import torch

    if dtype != "float32" and torch.device(device).type == "cpu":
        raise SettingsError(f"runtime.dtype is {dtype}, which needs a GPU; use float32 on a CPU")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
