"""What MLflow stores of a bundle: the serving model, this package and the packages that loading it needs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import erv

# Packages that loading a version needs; the exact versions in this environment are recorded with it.
_REQUIREMENTS = (
    "av", "boto3", "click", "decord", "eva-decord", "fastapi", "filelock", "jinja2", "mlflow", "numpy",
    "pandas", "pillow", "psutil", "pyarrow", "pydantic", "pyyaml", "safetensors", "starlette", "torch",
    "transformers",
)  # fmt: skip


def model_content(bundle: Path) -> dict[str, Any]:
    """What MLflow stores of a bundle, as arguments of `mlflow.pyfunc.log_model` and `save_model`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    package = Path(erv.__file__).parent
    columns = [ColSpec("string", column) for column in ("clip", "answer", "explanation")]
    return {
        "python_model": str(package / "register" / "serving_model.py"),
        "artifacts": {"bundle": str(bundle)},
        "code_paths": [str(package)],
        "pip_requirements": _requirements(),
        "signature": ModelSignature(
            inputs=Schema(columns[:1]),
            outputs=Schema(
                [
                    *columns,
                    ColSpec("double", "agreement", required=False),
                    ColSpec("string", "completion"),
                ]
            ),
        ),
    }


def _requirements() -> list[str]:
    found: Sequence[str] = []
    for package in _REQUIREMENTS:
        try:
            found = [*found, f"{package}=={importlib.metadata.version(package).partition('+')[0]}"]
        except importlib.metadata.PackageNotFoundError:  # one of the two decords
            continue
    return list(found)
