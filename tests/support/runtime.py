"""The tests' runtime: one process with one CPU thread."""

from typing import Any

from erv.settings import MachineSettings, RuntimeSettings

RUNTIME = RuntimeSettings(device="cpu", dtype="float32", threads=1, python="3.11")


def machine(
    *, rows_per_pass: int | None = None, save_steps: int = 2, sample_steps: int = 2, **changes: Any
) -> MachineSettings:
    """Machine settings with one process for everything, with some changed."""
    values = {
        "accelerate": None,
        "processes": 1,
        "feature_cache_gb": 1.0,
        "validate": {"workers": 2},
        "extract": {"workers": 2, "dask": None},
        "sft": {"rows_per_pass": rows_per_pass, "save_steps": save_steps},
        "grpo": {
            "rows_per_pass": rows_per_pass,
            "save_steps": save_steps,
            "sample_steps": sample_steps,
        },
        "evaluate": {"processes": 1, "features_gb": 0.0},
    }
    return MachineSettings.model_validate(values | changes)


MACHINE = machine()
