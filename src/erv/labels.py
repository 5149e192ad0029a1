"""Label spaces: the explicit, ordered and versioned names of a data set's emotions.

A space is a YAML file with ids, canonical names, synonyms and maps to other spaces. A data set's name is the
name of its space: one that comes with the package (`label_spaces/*.yaml`) or one of your own, in the
workspace's `data/label_spaces/`. A file may say `uses: NAME` and share another space. Nothing is ever derived
from the order in which labels happen to appear in data.
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
OWN_FOLDER = Path("data/label_spaces")
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
        """Loads the space of a data set by name, or one from a YAML file.

        Raises:
            DataError: no such space, or the file contradicts itself.
        """
        text = str(space)
        if text.endswith((".yaml", ".yml")):
            return _load(Path(text).resolve())
        shipped = _FOLDER / f"{text}.yaml"
        return _load(shipped if shipped.is_file() else (OWN_FOLDER / f"{text}.yaml").resolve())

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

        A space without a map to `other` uses the map of `other` backwards; of several labels that it maps to
        the same one, the first is the counterpart. So a space of one's own needs a map to MAFW and no change
        in MAFW's.

        Raises:
            DataError: no such space, or neither of the two declares a map.
        """
        space = LabelSpace.load(other) if isinstance(other, str) else other
        if space.name == self.name:
            table: Mapping[str, str] = {name: name for name in self.names}
        elif space.name in self._maps:
            table = self._maps[space.name]
        elif self.name in space._maps:
            back = space._maps[self.name]
            table = {back[name]: name for name in reversed(space.names) if name in back}
        else:
            raise DataError(
                f"label spaces {self.name!r} and {space.name!r} have no map to each other;"
                " add one under `maps` of either"
            )
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
            f"label space {path.stem!r} not found; give one of {shipped}, or write {OWN_FOLDER}/{path.name}"
        )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        other = raw.get("uses")
        if other is None:
            rows = [
                (int(row["id"]), str(row["name"]), list(row.get("synonyms") or ())) for row in raw["labels"]
            ]
            name, version = str(raw["name"]), int(raw.get("version", 1))
            maps = {str(k): dict(v) for k, v in (raw.get("maps") or {}).items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path.name}: not a label space ({error!r}); expected name, labels (id, name, synonyms), maps,"
            " or `uses: NAME`"
        ) from error
    if other is not None:
        if str(other) not in LabelSpace.shipped():
            raise DataError(
                f"{path.name}: uses {other!r}, expected a space that comes with the package:"
                f" {', '.join(LabelSpace.shipped())}"
            )
        return LabelSpace.load(str(other))
    if name != path.stem and path.parent in (_FOLDER, OWN_FOLDER.resolve()):
        raise DataError(f"{path.name}: calls itself {name!r}, expected {path.stem!r}; the two must be equal")
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
