"""What a machine lacks for a part of the GPU proof, from what `probe` found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.parts import Part

ROOT = Path(__file__).parents[2]
REMEDY = "bring it as a wheel (--wheels)"


def lacks(part: Part, found: Mapping[str, Any], device: str, size: str) -> list[str]:
    """What stops this part, each as a sentence; empty if it can run.

    Args:
        part: the part.
        found: from `probe`.
        device: `cuda` or `cpu`.
        size: the size that it would run at; only the part's own size asks for memory and disk.
    """
    reasons = []
    if device == "cpu" and not part.on_cpu:
        reasons.append("it says nothing without a GPU")
    if device == "cuda" and not found["gpus"]:
        reasons.append(f"no CUDA device: {found['why_no_gpu']}")
    missing = dict(found["missing"])
    for name in part.packages:
        missing |= found["extras_missing"].get(name, {name: "this part"})
    if missing:
        names = ", ".join(f"{name} (for {asker})" for name, asker in sorted(missing.items()))
        reasons.append(f"packages: {names}; {REMEDY}")
    if part.name == "vllm" and found["vllm"]:
        reasons.append(f"vLLM: {found['vllm']}")
    if device == "cuda" and found["gpus"] and size == part.size:
        largest = max(gpu["bytes"] for gpu in found["gpus"]) / 1e9
        if largest < part.gigabytes:
            reasons.append(f"memory: the GPU has {largest:.0f} GB, this part needs {part.gigabytes:.0f}")
    free = found["disk_free"] / 1e9
    if size == part.size and free < part.disk:
        reasons.append(f"disk: {free:.0f} GB are free below TMPDIR, this part needs {part.disk:.0f}")
    return reasons


def other_versions(found: Mapping[str, Any]) -> list[str]:
    """Packages whose version is not one that `pyproject.toml` allows; they stop nothing, and may fail."""
    import tomllib  # from Python 3.11 on, which the script asks for first

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    allowed = {canonicalize_name(one.name): one.specifier for one in map(Requirement, lines)}
    return [
        f"{name} {version}, where erv is made for {allowed[name]}"
        for name, version in sorted(found["there"].items())
        if name in allowed and not allowed[name].contains(version, prereleases=True)
    ]
