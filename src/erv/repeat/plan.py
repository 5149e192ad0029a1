"""Which seeds and folds are run, and what the experiments are called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from erv.errors import SettingsError
from erv.settings import Settings

PREFIX = "repeat"
_NAME = re.compile(rf"{PREFIX}-s(\d+)-f(\d+)(?:-([0-9a-f]{{8}}))?")
_PART = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, order=True)
class Repeat:
    """One run of the pipeline: a seed, and the official fold whose test split is used.

    Attributes:
        parameters: digest of all other parameters, see `erv.repeat.parameters`; runs with different ones are
            different runs. Empty for experiments of earlier versions, which didn't record it.
    """

    seed: int
    fold: int
    parameters: str = ""

    @property
    def name(self) -> str:
        """The name of its experiment."""
        name = f"{PREFIX}-s{self.seed}-f{self.fold}"
        return f"{name}-{self.parameters}" if self.parameters else name

    @property
    def overrides(self) -> tuple[str, ...]:
        """What `dvc exp run -S` sets."""
        return (f"seed={self.seed}", f"ingest.fold={self.fold}")


def named(name: str) -> Repeat | None:
    """The repeat that an experiment's name stands for; None for an experiment of another kind."""
    match = _NAME.fullmatch(name)
    return Repeat(int(match[1]), int(match[2]), match[3] or "") if match else None


def numbers(text: str) -> tuple[int, ...]:
    """Numbers as they are written on the command line: `101,102` or `101-110` or both.

    Raises:
        ValueError: it is not such a list.
    """
    found: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"{part.strip()!r} is neither a number nor a range; expected e.g. 101,102 or 101-110"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part.strip()} is empty; write {last}-{first}")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def plan(
    seeds: Sequence[int], folds: Sequence[int], settings: Settings, parameters: str = ""
) -> list[Repeat]:
    """Every seed with every fold.

    Args:
        seeds: at least one.
        folds: at least one, 1..5.
        settings: of the workspace; its local sources must be found from elsewhere too.
        parameters: their digest, see `erv.repeat.parameters`.

    Raises:
        SettingsError: a fold that doesn't exist, or a source that is a relative path.
    """
    for fold in folds:
        if not 1 <= fold <= 5:
            raise SettingsError(f"fold {fold} does not exist; expected 1 to 5")
    for name, uri in settings.sources.model_dump().items():
        if uri and "://" not in str(uri) and not PurePosixPath(str(uri)).is_absolute():
            raise SettingsError(
                f"sources.{name} is {uri!r}, a path relative to this workspace, and experiments run in"
                " folders of their own; give an absolute path or an s3:// address and pin it with"
                " `erv data pin`"
            )
    return [Repeat(seed, fold, parameters) for seed, fold in itertools.product(seeds, folds)]
