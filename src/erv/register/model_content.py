"""What MLflow stores of a bundle: the serving model, the code that answers, and the packages it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erv.answering.clips import INPUTS
from erv.answering.predictor import COLUMNS
from erv.policies.common.families import family_of, read_config
from erv.policies.common.policy import stored_prompt
from erv.register.requirements import pinned_requirements
from erv.register.serving_code import copy_code

if TYPE_CHECKING:
    from mlflow.types import Schema

SERVING_MODEL = "erv.register.serving_model"


def model_content(bundle: Path, folder: Path) -> dict[str, Any]:
    """What MLflow stores of a bundle, as arguments of `mlflow.pyfunc.log_model` and `save_model`.

    Args:
        bundle: its folder.
        folder: an empty folder, into which the code is copied; it must stay until MLflow has stored it.
    """
    import pandas as pd
    from mlflow.models import ModelSignature

    return {
        "python_model": str(Path(__file__).with_name("serving_model.py")),
        "artifacts": {"bundle": str(bundle)},
        "code_paths": [str(copy_code(bundle, folder))],
        "pip_requirements": _requirements(bundle),
        "signature": ModelSignature(inputs=_anything(*INPUTS), outputs=_answers()),
        "input_example": pd.DataFrame(_example(bundle)),
    }


def _example(bundle: Path) -> dict[str, list[str | None]]:
    """Two rows with what the question of the bundle's policy needs."""
    columns: dict[str, list[str | None]] = {"clip": ["monday/00012.mp4", "s3://clips/monday/00013.mp4"]}
    fields = stored_prompt(bundle / "policy").fields
    tested = json.loads((bundle / "serving.json").read_text(encoding="utf-8")).get("datasets") or {}
    if "labels" in fields and tested:
        columns["dataset"] = [min(tested)] * 2
    if "subtitle" in fields:
        columns["subtitle"] = ["I never thought that you would come!", None]
    return columns


def _anything(*columns: str) -> Schema:
    """Columns none of which must be there, and whose cells may be anything.

    A cell that is none of what a clip can be costs its own row. Of columns of texts MLflow refuses the whole
    table if pandas takes one for numbers, as where it is empty, or for categories.
    """
    from mlflow.types.schema import AnyType, ColSpec, Schema

    return Schema([ColSpec(AnyType(), column, required=False) for column in columns])


def _answers() -> Schema:
    from mlflow.types import ColSpec, Schema

    kinds = {column: "double" if column == "agreement" else "string" for column in COLUMNS}
    return Schema([ColSpec(kind, column, required=False) for column, kind in kinds.items()])


def _requirements(bundle: Path) -> list[str]:
    """Requirements of the serving model and of the family of the bundle's policy."""
    policy = bundle / "policy"
    family = family_of(read_config(policy), policy)
    return pinned_requirements([SERVING_MODEL, f"erv.policies.{family}"])
