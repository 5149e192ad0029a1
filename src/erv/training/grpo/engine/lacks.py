"""What this machine lacks for `grpo.generation: vllm`, found without loading anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

REQUIREMENTS = Path("requirements/vllm.txt")  # the only place that names the version
INSTALL = f"python -m venv .venv-vllm && .venv-vllm/bin/pip install -r {REQUIREMENTS}"
_ASK = "from importlib.metadata import version; print(version('vllm'))"


def vllm_version(python: Path) -> str | None:
    """The version of vLLM that an interpreter has; None if there is no interpreter or no vLLM."""
    try:
        asked = subprocess.run(
            [str(python), "-c", _ASK], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def version_fault(version: str | None, workspace: Path) -> str | None:
    """What is wrong with a version of vLLM, as a part of a sentence; None if it is the pinned one.

    Args:
        version: the installed version, None if there is none.
        workspace: folder of `requirements/vllm.txt`.
    """
    if version is None:
        return "no vLLM"
    try:
        lines = (workspace / REQUIREMENTS).read_text(encoding="utf-8").split("\n")
    except OSError:
        return f"vLLM {version}, and {REQUIREMENTS}, which names the expected version, isn't here"
    expected = next(line for line in lines if line.startswith("vllm==")).removeprefix("vllm==").strip()
    local = version.partition("+")[0]  # a build for another CUDA is 0.33.0+cu129
    return None if local == expected else f"vLLM {version}, expected {expected}"


def vllm_fault(python: Path, workspace: Path = Path()) -> str | None:
    """One sentence if this interpreter hasn't the vLLM of `requirements/vllm.txt`, else None."""
    fault = version_fault(vllm_version(python), workspace)
    if fault is None:
        return None
    return (
        f"grpo.generation is vllm, but machine.grpo.vllm_python ({python}) has {fault}; install it with"
        f" `{INSTALL}`, or set grpo.generation: transformers"
    )
