"""The file of the proof's figures: one entry per part, each with its machine, versions and commit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "gpu_proof.json"


def read(path: Path) -> dict[str, Any]:
    """The entries by part; none if there is no such file."""
    return json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else {}


def write(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Replaces the entry of a part at once; the others stay."""
    from erv.files import write_text

    document = {"command": "make gpu-proof", "parts": dict(sorted((read(path) | {name: entry}).items()))}
    write_text(json.dumps(document, indent=2) + "\n", path)


def machine(found: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The parts of `probe`'s answer that decide what figures mean."""
    gpus = [gpu["name"] for gpu in found["gpus"]] if device == "cuda" else []
    return {"device": gpus[0] if gpus else "cpu", "gpus": len(gpus), "cores": found["cores"],
            "system": found["system"]}  # fmt: skip


def versions(found: Mapping[str, Any]) -> dict[str, str]:
    """The versions that decide what is computed."""
    named = ("torch", "transformers", "accelerate", "trl", "peft")
    extras = {name: version for name, version in found["extras_there"].items() if version}
    return {"python": found["python"]} | {n: found["there"][n] for n in named if n in found["there"]} | extras


def commit() -> str:
    """The commit of this checkout, with `+changes` if it isn't clean; the digest of the code without git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        code = ("src", "benchmarks", "params.yaml", ":(exclude)benchmarks/gpu_proof.json")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        from erv.files import sha256_of

        return f"no git; src/erv is {sha256_of(ROOT / 'src' / 'erv')}"
