"""What a stage ran with, noted in its MLflow run when it ends: the parameters only say what was asked for."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

DEVICE = "erv.ran.device"
PRECISION = "erv.ran.precision"
HARDWARE = "erv.ran.hardware"
LIBRARIES = "erv.ran.libraries"
PARAMETERS = "erv.ran.parameters"  # of the policy that it wrote or asked
TRAINED = "erv.ran.trained_parameters"
SOUND = "erv.ran.sound_features"

_SHOWN = ("torch", "transformers", "tokenizers", "trl", "peft", "accelerate", "vllm", "bitsandbytes", "numpy")


_noted: dict[str, str] = {}  # what only the middle of the stage of this process knows


def note_trained(weights: Iterable[Any]) -> None:
    """Notes how many weights train, for the run of the stage that this process is.

    Args:
        weights: the parameters of the model as it trains, adapters among them.
    """
    # Under ZeRO a weight may be empty here, and has its size elsewhere.
    sizes = (getattr(item, "ds_numel", item.numel()) for item in weights if item.requires_grad)
    _noted[TRAINED] = str(sum(sizes))


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
        **_noted,
    }


def policy_tags(folder: Path) -> dict[str, str]:
    """What the folder of a policy says of it: how many weights it has, and how it takes sound.

    What it doesn't say is left out: an arm's weights, say, are elsewhere.
    """
    from safetensors import SafetensorError

    found = {}
    if weights := sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(OSError, SafetensorError):  # the stage has read it, or says what is wrong
            found[PARAMETERS] = str(sum(count for path in weights for count in _sizes(path)))
    if sound := _sound(folder):
        found[SOUND] = sound
    return found


def _sizes(path: Path) -> Iterator[int]:
    """The number of weights in each tensor of a safetensors file, from its header alone."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 (it has no other way to list them)
            yield math.prod(file.get_slice(name).get_shape())


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
