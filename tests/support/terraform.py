"""The values that infra/terraform decides, as Terraform itself computes them, which needs no provider."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT

FOLDER = ROOT / "infra" / "terraform"
MISSING = "Terraform isn't installed"


def installed() -> bool:
    """Whether there is a Terraform; its provider, which comes from a registry, is not needed."""
    return shutil.which("terraform") is not None


def terraform(
    folder: Path, *words: str, said: str = "", variables: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs Terraform in a copy of the files that name no provider."""
    for name in ("variables.tf", "policies.tf"):
        shutil.copy(FOLDER / name, folder)
    needed = {"name": "erv", "region": "us-east-1"}
    given = [f"-var={name}={value}" for name, value in {**needed, **variables}.items()]
    return subprocess.run(
        ["terraform", *words, "-no-color", *given],
        input=said,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def values(folder: Path, expression: str, **variables: str) -> Any:
    """What an expression is."""
    said = terraform(folder, "console", said=f"jsonencode({expression})", variables=variables)
    assert said.returncode == 0, said.stderr
    return json.loads(json.loads(said.stdout))
