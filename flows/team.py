"""What tells the runs and news of one registered model from those of others on the same Prefect server.

Teams that share a server differ in the name of their model (`register.model_name`).
"""

from __future__ import annotations

import re
from pathlib import Path

from erv.files import sha256_of_text
from erv.settings import load_settings
from erv.stack.deployments import MODEL_TAG

RUN_BY = "erv-run-by:"


def model_here() -> str:
    """The name of the model that this workspace registers.

    Raises:
        SettingsError: `params.yaml` has faults.
    """
    return load_settings(Path("params.yaml")).register_.model_name


def tag_of(model: str) -> str:
    """The tag of a model's flow runs; `prefect.yaml` gives it to those of deployments."""
    return f"{MODEL_TAG}{model}"


def run_by(who: str, workspace: Path) -> str:
    """The tag of a flow run from a terminal, by which its failure says whose it is and where.

    Args:
        who: from `erv.tracking.origin.who`.
        workspace: the clone.
    """
    return f"{RUN_BY}{who} in {workspace}"


def block_of(model: str) -> str:
    """The name of the block with the address that a model's news go to.

    Prefect allows small letters, digits and dashes; of two names that differ only in other letters, both keep
    a block of their own.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    return f"erv-notify-{plain}" + ("" if plain == model else f"-{sha256_of_text(model)[:8]}")
