"""What this machine lacks for `grpo.generation: vllm`, found without loading anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

from erv.training.common.pins import version_fault

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


def vllm_fault(python: Path, workspace: Path = Path()) -> str | None:
    """One sentence if this interpreter hasn't the vLLM of `requirements/vllm.txt`, else None."""
    fault = version_fault("vllm", vllm_version(python), workspace / REQUIREMENTS)
    if fault is None:
        return None
    return (
        f"grpo.generation is vllm, but machine.grpo.vllm_python ({python}) has {fault}; install it with"
        f" `{INSTALL}`, or set grpo.generation: transformers"
    )
