"""What this machine has, as JSON: `python -m benchmarks.gpu.probe`. It needs nothing but Python."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import PACKAGES, PARTS


def needed(names: tuple[str, ...], by: str = "the proof") -> tuple[dict[str, str], dict[str, str]]:
    """Walks through what distributions need.

    Returns:
        Versions of those that are there, and of each missing one, which other asks for it.
    """
    there: dict[str, str] = {}
    missing: dict[str, str] = {}
    waiting = [(name, by) for name in names]
    while waiting:
        name, asker = waiting.pop()
        if name in there or name in missing:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            missing[name] = asker
            continue
        there[name] = _build(name) or found.version
        waiting += [(other, name) for other in _requires(found.requires or [])]
    return there, missing


def _build(name: str) -> str:
    """What torch calls itself, as its metadata may lack the label of the build (`+cu130`); else empty."""
    return str(getattr(sys.modules.get(name), "__version__", "")) if name == "torch" else ""


def _requires(lines: list[str]) -> list[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = map(Requirement, lines)
    return [
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
    ]


def devices() -> tuple[list[dict[str, Any]], str]:
    """The GPUs that torch sees, and why there is none."""
    try:
        import torch
    except Exception as error:  # not there, or a library of the driver is missing
        return [], f"torch can't be imported ({type(error).__name__}: {str(error)[:200]})"
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        return [], "torch sees no GPU" if built else f"torch {torch.__version__} is a build without CUDA"
    all_of = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [{"name": one.name, "bytes": one.total_memory} for one in all_of], ""


def vllm() -> str:
    """Why vLLM can't write completions here; empty if it can."""
    try:
        from erv.settings import load_settings
        from erv.training.grpo.engine.lacks import vllm_fault

        return vllm_fault(Path(load_settings().machine.grpo.vllm_python)) or ""
    except Exception as error:  # whatever keeps our own code from being imported here
        return f"it can't be asked for ({type(error).__name__}: {str(error)[:200]})"


def probe() -> dict[str, Any]:
    """Python, processor, GPUs, and versions of what the parts need."""
    gpus, why_none = devices()
    try:
        import packaging  # noqa: F401

        there, missing = needed(PACKAGES)
    except ImportError:
        there, missing = {}, {"packaging": "the proof"}
    extras = {name: needed((name,), part.name) for part in PARTS for name in part.packages} if there else {}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "disk_free": shutil.disk_usage(tempfile.gettempdir()).free,
        "gpus": gpus,
        "why_no_gpu": why_none,
        "there": there,
        "missing": missing,
        "vllm": vllm(),
        "extras_missing": {name: lacks for name, (_, lacks) in extras.items()},
        "extras_there": {name: found.get(name) for name, (found, _) in extras.items()},
    }


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)
