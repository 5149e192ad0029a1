"""The names that parameters, metrics and tags of a run have in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HOST_TAG = "erv.host"  # the machine that a stage ran on
DATA_DOCS_TAG = "erv.validate.data_docs"  # the path of the Data Docs among a run's artifacts


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as dotted names: `{"a": {"b": [1]}}` is `{"a.b.0": 1}`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            result.update(flatten(value, f"{key}."))
        elif isinstance(value, list | tuple):
            result.update(flatten({str(i): item for i, item in enumerate(value)}, f"{key}."))
        else:
            result[key] = value
    return result


def entry_name(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in the names of metrics and parameters."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
