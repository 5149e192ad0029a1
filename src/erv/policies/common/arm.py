"""`arm.json` in a policy folder: how a policy answers that doesn't simply answer, and where its weights are.

An arm of a comparison may answer without thinking, or be a policy that nobody here trained. Both are ordinary
policy folders to everything else: `load_policy` reads this file and does as it says. A folder without the
file holds a policy that thinks first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from erv.errors import DataError
from erv.files import write_document
from erv.prompts import DIRECT_BEGINNING

FILE = "arm.json"


@dataclass(frozen=True)
class Arm:
    """How a policy takes part in a comparison.

    Attributes:
        thinks: whether it explains before it answers. Otherwise every completion begins with an empty
            explanation (`DIRECT_BEGINNING`) that the policy is given.
        folder: where its weights are; None for the folder of the file itself.
        digest: sha256 over names and sha256 of all files of `folder`; None without a folder.
        sizes: bytes of each of these files, by relative path.
    """

    thinks: bool = True
    folder: str | None = None
    digest: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def begins(self) -> str:
        """What every completion begins with; the policy writes the rest."""
        return "" if self.thinks else DIRECT_BEGINNING


def write_arm(arm: Arm, folder: Path) -> None:
    """Writes the file into a policy folder."""
    write_document(asdict(arm), folder / FILE)


def read_arm(folder: Path) -> Arm:
    """What a policy folder says of its arm.

    Raises:
        DataError: the file is damaged, or the weights that it leads to are not there as they were.
    """
    arm = stated_arm(folder)
    for name, size in arm.sizes.items():
        file = Path(str(arm.folder)) / name
        if not file.is_file() or file.stat().st_size != size:
            raise DataError(
                f"{file}: not as it was when the arm {folder.name} was recorded; run `dvc repro arms`"
            )
    return arm


def stated_arm(folder: Path) -> Arm:
    """The same without a look at weights elsewhere.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return Arm()
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Arm(**content)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not what the stage arms writes ({error}); run `dvc repro arms`") from None
