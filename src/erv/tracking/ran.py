"""What a stage ran with, noted in its MLflow run when it ends: the parameters only say what was asked for."""

from __future__ import annotations

import json
import math
import os
import platform
import struct
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

DEVICE = "erv.ran.device"
PRECISION = "erv.ran.precision"
HARDWARE = "erv.ran.hardware"
LIBRARIES = "erv.ran.libraries"
PARAMETERS = "erv.ran.parameters"  # of the policy that it wrote or asked
TRAINED = "erv.ran.trained_parameters"
SOUND = "erv.ran.sound_features"

_SHOWN = ("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "vllm", "bitsandbytes", "numpy")
_LONGEST_HEADER = 100_000_000  # bytes; a file that claims more is no safetensors file


def ran_tags(device: str, precision: str) -> dict[str, str]:
    """Hardware, precision and versions of libraries of this process.

    Args:
        device: that the stage computed on, `cuda` or `cpu`.
        precision: that it computed in, `bfloat16`.
    """
    return {
        DEVICE: device,
        PRECISION: precision,
        HARDWARE: _gpus() if device == "cuda" else _processor(),
        LIBRARIES: ", ".join([f"Python {platform.python_version()}", *_versions()]),
    }


def policy_tags(folder: Path) -> dict[str, str]:
    """What the folder of a policy says of it: how many weights it has, and how it takes sound.

    What it doesn't say is left out: an arm's weights, say, are elsewhere.
    """
    found = {}
    if weights := sorted(folder.glob("*.safetensors")):
        try:
            found[PARAMETERS] = str(sum(count for path in weights for count in _sizes(path)))
        except (OSError, ValueError, struct.error):
            found.pop(PARAMETERS, None)
    if sound := _sound(folder):
        found[SOUND] = sound
    return found


def _sizes(path: Path) -> Iterator[int]:
    """The number of weights in each tensor of a safetensors file, from its header alone."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _LONGEST_HEADER:
            raise ValueError("no safetensors file")
        header = json.loads(stream.read(length))
    for name, tensor in header.items():
        if name != "__metadata__":
            yield math.prod(tensor["shape"])


def _sound(folder: Path) -> str | None:
    """`log-mel, 128 bands at 16000 Hz, window 400, step 160, 30 s`, from the policy's feature extractor."""
    for name in ("processor_config.json", "preprocessor_config.json"):  # a released checkpoint has the second
        try:
            values = json.loads((folder / name).read_text(encoding="utf-8"))
            values = values.get("feature_extractor", values)
            bands, rate, window = values["feature_size"], values["sampling_rate"], values["n_fft"]
            length = f", {values['chunk_length']} s" if "chunk_length" in values else ""
            return (
                f"log-mel, {bands} bands at {rate} Hz, window {window}, step {values['hop_length']}{length}"
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return None


def _gpus() -> str:
    torch = sys.modules["torch"]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))


def _processor() -> str:
    """The model of the processor, as Linux or Python names it, and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # not Linux
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def _versions() -> Iterator[str]:
    for name in _SHOWN:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
