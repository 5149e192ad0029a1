"""What a sweep was started with. It stays as it is, or its trials couldn't be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from erv.errors import SettingsError
from erv.files import sha256_of_text, write_document
from erv.sweep.options import NAME
from erv.sweep.space import Space, parse_space

FILE = "plan.json"


@dataclass(frozen=True)
class Plan:
    """A sweep, apart from how many trials it has and how many at a time.

    Attributes:
        name: of the sweep.
        space: the values to try, by parameter, as they were written.
        overrides: what all trials set besides.
        stage: the stage that decides.
        metric: by what, of `erv.sweep.options.METRICS`.
        direction: of `DIRECTIONS` there.
        seed: of the suggestions.
        sampler: of `SAMPLERS` there.
        prune: whether trials that fall behind are ended.
        prune_after: how many trials have to be finished before one is.
        commit: what is checked out.
        patch: the hash of changes that no commit has; empty without any.
        parameters: the hash of `params.yaml` at the start.
    """

    name: str
    space: Mapping[str, str]
    overrides: tuple[str, ...]
    stage: str
    metric: str
    direction: str
    seed: int
    sampler: str
    prune: bool
    prune_after: int
    commit: str
    patch: str
    parameters: str

    @property
    def dimensions(self) -> Space:
        """The space, read."""
        return parse_space([f"{name}={text}" for name, text in self.space.items()])

    def save(self, folder: Path) -> None:
        """Writes the plan into the sweep's folder."""
        write_document(asdict(self), folder / FILE)

    def require_same(self, other: Plan) -> None:
        """Makes sure that a sweep goes on as it began.

        Args:
            other: what it is asked to be now.

        Raises:
            SettingsError: something differs.
        """
        names = {
            "space": "the parameters to vary",
            "overrides": "what is set in all trials",
            "parameters": "params.yaml",
            "commit": "the commit",
            "patch": "the uncommitted changes",
        }
        for item in fields(self):
            before, now = getattr(self, item.name), getattr(other, item.name)
            if before != now:
                shown = (
                    ""
                    if item.name in ("parameters", "patch")
                    else f" ({_shown(before)} then, {_shown(now)} now)"
                )
                raise SettingsError(
                    f"sweep {self.name!r} was begun with another state of"
                    f" {names.get(item.name, item.name)}{shown}, and its trials must stay comparable; give"
                    " its name alone to go on as it began, or another name"
                )


def key_of(name: str) -> str:
    """The key of a sweep's table in Prefect, which takes small letters only; no other sweep has the same."""
    plain = name.lower().replace("_", "-")
    return f"sweep-{plain}" if plain == name else f"sweep-{plain}-{sha256_of_text(name)[:8]}"


def check_name(name: str) -> None:
    """Refuses what can't be the name of a folder, of an MLflow run and of an artifact.

    Raises:
        SettingsError: it can't.
    """
    if re.fullmatch(NAME, name) is None:
        raise SettingsError(
            f"sweep {name!r}: expected at most 40 letters (a to z, A to Z), digits, - and _, such as beta-1"
        )


def read_plan(folder: Path) -> Plan | None:
    """The plan of a sweep that was begun; None if none was.

    Raises:
        SettingsError: it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Plan(**{**found, "overrides": tuple(found["overrides"])})
    except (ValueError, TypeError, LookupError):
        raise SettingsError(f"{path}: damaged; give the sweep another name, or delete {folder}") from None


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    return " ".join(value) if isinstance(value, list | tuple) else str(value)[:40]
