"""Which version is served, said once where mlflow's scoring server starts: its answers don't name it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from erv.files import parse_yaml

_REGISTERED = "registered_model_meta"  # mlflow notes there what it has downloaded
_RECORD = "lineage.json"  # as `erv.register.record` stores it
# mlflow sets up no logs below warnings but its own and uvicorn's, which has the address too.
logger = logging.getLogger("uvicorn.error")


def say_what_is_served(model: Path) -> None:
    """Logs model, version and bundle.

    Args:
        model: folder of the MLflow model.
    """
    logger.info("serving %s", served(model))


def served(model: Path) -> str:
    """`emotion-policy version 2 (bundle 1f0c...)`, or what of it is known.

    Args:
        model: folder of the MLflow model; one that was not published, or was exported, says less.
    """
    registered, record = _values(model / _REGISTERED), _values(model / _RECORD)
    name = registered.get("model_name") or record.get("model") or "a model without a record"
    number, bundle = registered.get("model_version"), record.get("bundle")
    return f"{name}{f' version {number}' if number else ''}{f' (bundle {bundle})' if bundle else ''}"


def _values(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it isn't there, or is damaged, as it is only told and decides nothing."""
    try:
        content = path.read_bytes()
        found = json.loads(content) if path.suffix == ".json" else parse_yaml(content)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s can't be read: %s", path.name, error)
        return {}
    return found if isinstance(found, dict) else {}
