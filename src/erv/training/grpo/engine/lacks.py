"""What this machine lacks for `grpo.generation: vllm`, found without loading anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

INSTALL = "python -m venv .venv-vllm && .venv-vllm/bin/pip install -r requirements/vllm.txt"
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


def vllm_fault(python: Path) -> str | None:
    """One sentence if this interpreter has no vLLM, else None."""
    if vllm_version(python) is not None:
        return None
    return (
        f"grpo.generation is vllm, but machine.grpo.vllm_python ({python}) has no vLLM; install it with"
        f" `{INSTALL}`, or set grpo.generation: transformers"
    )
