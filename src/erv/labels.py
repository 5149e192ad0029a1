"""Label spaces: the explicit, ordered and versioned names of a data set's emotions.

A space is a YAML file (`label_spaces/*.yaml`, or one of your own) with ids, canonical names, synonyms and
maps to other spaces. Nothing is ever derived from the order in which labels happen to appear in data.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from erv.errors import DataError

_FOLDER = Path(__file__).parent / "label_spaces"
_EDGES = " \t\r\n.,;:!?\"'`*()[]"


@dataclass(frozen=True)
class LabelSpace:
    """The emotions of one data set.

    Attributes:
        name: name of the space, e.g. `mafw`.
        version: raised when ids, names or synonyms change.
        names: canonical names in the order of their ids.
        ids: canonical name -> id as the data set's own files write it.
    """

    name: str
    version: int
    names: tuple[str, ...]
    ids: Mapping[str, int]
    _synonyms: Mapping[str, str] = field(repr=False)
    _maps: Mapping[str, Mapping[str, str]] = field(repr=False)

    @staticmethod
    def load(space: str | Path) -> LabelSpace:
        """Loads a shipped space by name, or one from a YAML file.

        Raises:
            DataError: no such space, or the file contradicts itself.
        """
        text = str(space)
        path = Path(text) if text.endswith((".yaml", ".yml")) else _FOLDER / f"{text}.yaml"
        return _load(path)

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """Names of the spaces that come with the package."""
        return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))

    def normalize(self, text: str | None) -> str | None:
        """The canonical name that `text` means, or None when it means none of this space.

        The whole text must be a name or a synonym: `unhappy` is not happiness and `danger` is not anger,
        unlike the substring rules of the method's released code. Case, runs of white space and surrounding
        punctuation are ignored.
        """
        if text is None:
            return None
        return self._synonyms.get(" ".join(text.strip(_EDGES).lower().split()))

    def to(self, other: LabelSpace | str) -> Callable[[str | None], str | None]:
        """A function from this space's canonical names to those of `other`; None where there is no
        counterpart.

        Raises:
            DataError: the space declares no map to `other`.
        """
        target = other if isinstance(other, str) else other.name
        if target == self.name:
            identity = {name: name for name in self.names}
            return lambda name: identity.get(name or "")
        if target not in self._maps:
            known = ", ".join(sorted(self._maps)) or "none"
            raise DataError(
                f"label space {self.name!r} has no map to {target!r} (it has: {known}); add it under `maps`"
            )
        table = self._maps[target]
        return lambda name: table.get(name or "")

    def name_of(self, label_id: int) -> str:
        """The canonical name of a data set's own id.

        Raises:
            DataError: the id is not one of the space's (a 0-based or re-numbered file, usually).
        """
        for name, known in self.ids.items():
            if known == label_id:
                return name
        low, high = min(self.ids.values()), max(self.ids.values())
        raise DataError(
            f"label id {label_id} is not in {self.name}'s range {low}..{high}; the file was numbered"
            " otherwise, use the data set's original one"
        )


@functools.cache
def _load(path: Path) -> LabelSpace:
    if not path.is_file():
        shipped = ", ".join(LabelSpace.shipped())
        raise DataError(
            f"label space {path.stem!r} not found; give one of {shipped} or the path of a YAML file"
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows = [(int(row["id"]), str(row["name"]), list(row.get("synonyms") or ())) for row in raw["labels"]]
        name, version = str(raw["name"]), int(raw.get("version", 1))
        maps = {str(k): dict(v) for k, v in (raw.get("maps") or {}).items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path.name}: not a label space ({error!r}); expected name, labels (id, name, synonyms), maps"
        ) from error
    return _checked(path, name, version, rows, maps)


def _checked(
    path: Path,
    name: str,
    version: int,
    rows: list[tuple[int, str, list[Any]]],
    maps: dict[str, dict[str, str]],
) -> LabelSpace:
    ids = {label: label_id for label_id, label, _ in rows}
    if len(ids) != len(rows) or len(set(ids.values())) != len(rows):
        raise DataError(f"{path.name}: label ids and names must be unique")
    if list(ids.values()) != sorted(ids.values()):
        raise DataError(f"{path.name}: labels must be listed in the order of their ids")
    synonyms: dict[str, str] = {}
    for _, label, words in rows:
        for word in (label, *words):
            key = re.sub(r"\s+", " ", str(word).strip().lower())
            if synonyms.setdefault(key, label) != label:
                raise DataError(f"{path.name}: {key!r} names both {synonyms[key]} and {label}")
    for target, table in maps.items():
        unknown = sorted(set(table) - set(ids))
        if unknown:
            raise DataError(f"{path.name}: map to {target} starts from unknown label {unknown[0]!r}")
    return LabelSpace(name, version, tuple(ids), ids, synonyms, maps)
