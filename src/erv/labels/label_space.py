"""A label space: a YAML file with ids, canonical names, synonyms and maps to other spaces.

A data set's name is the name of its space: one that comes with the package (`spaces/*.yaml`) or one of your
own, in the workspace's `data/label_spaces/`. A file may say `uses: NAME` and share another space. Nothing is
ever derived from the order in which labels happen to appear in data.
"""

from __future__ import annotations

import difflib
import functools
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from erv.errors import DataError

_FOLDER = Path(__file__).parent / "spaces"
OWN_FOLDER = Path("data/label_spaces")
_WANTED = {
    "string_type": "expected text (what YAML takes for something else, like no or 1, needs quotes)",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "tuple_type": "expected a list",
    "dict_type": "expected a mapping",
    "too_short": "expected at least one",
}
# The name of the neutral label in every space that has one.
NEUTRAL = "neutral"
_EDGES = " \t\r\n.,;:!?\"'`*()[]"
_BETWEEN = re.compile(
    r"[,;/|+&_\n]|\b(?:and|or|but|yet|with|plus|then|along with|as well as|mixed with)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class LabelSpace:
    """The emotions of one data set.

    Attributes:
        name: name of the space, e.g. `mafw`.
        version: increased when ids, names or synonyms change.
        names: canonical names in the order of their ids.
        ids: canonical name -> id as the data set's own files write it, the first if several mean it.
    """

    name: str
    version: int
    names: tuple[str, ...]
    ids: Mapping[str, int]
    _names_of: Mapping[int, str] = field(repr=False)
    _synonyms: Mapping[str, str] = field(repr=False)
    _maps: Mapping[str, Mapping[str, str]] = field(repr=False)
    _shown: str = field(repr=False)

    @staticmethod
    def load(space: str | Path) -> LabelSpace:
        """Loads the space of a data set by name, or one from a YAML file.

        Raises:
            DataError: there is no such space, or the file contradicts itself.
        """
        return _find(str(space), str(Path.cwd()))

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """Names of the spaces that come with the package."""
        return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))

    def normalize(self, text: str | None) -> str | None:
        """The canonical name that `text` means, or None if it means none in this space.

        The whole text must be a name or a synonym: `unhappy` is not happiness and `danger` is not anger,
        unlike the substring rules of the method's released code. Case, runs of white space and surrounding
        punctuation are ignored. In a space with compound names, a list of emotions is the compound of exactly
        these, in any order: `disgusted & angry` is `anger_disgust`.
        """
        if text is None:
            return None
        whole = self._synonyms.get(_plain(text))
        if whole is not None or not self.has_compounds:
            return whole
        return self._names_by_parts.get(self.named_set(text))

    def parts_of(self, name: str) -> frozenset[str]:
        """The single emotions of a canonical name: two of `anger_disgust`, one of `anger`."""
        parts = name.split("_")
        return frozenset(parts) if all(part in self.ids for part in parts) else frozenset([name])

    def share_an_emotion(self, one: str, other: str) -> bool:
        """Whether two canonical names are the same or have a part in common: `anger` and `anger_disgust`."""
        return not self.parts_of(one).isdisjoint(self.parts_of(other))

    @functools.cached_property
    def has_compounds(self) -> bool:
        """Whether some names stand for several emotions."""
        return any(len(parts) > 1 for parts in self._names_by_parts)

    def named_set(self, text: str | None) -> frozenset[str]:
        """The single emotions that a text lists, as in `anger and disgust`; empty if it lists none.

        A word that the space doesn't know is in the set as it is, in lower case.
        """
        if (whole := self._synonyms.get(_plain(text or ""))) is not None:
            return self.parts_of(whole)
        words = (word.strip(_EDGES).lower() for word in _BETWEEN.split(text or ""))
        known = (self._synonyms.get(_plain(word), word) for word in words if word)
        return frozenset(part for name in known for part in self.parts_of(name))

    @functools.cached_property
    def _names_by_parts(self) -> dict[frozenset[str], str]:
        return {self.parts_of(name): name for name in self.names}

    def named_in(self, text: str) -> tuple[str, ...]:
        """The canonical names of the emotions that a text names by name or synonym, as whole words.

        In the order of their ids. What the text says about them does not matter: "not angry" names anger.
        """
        found = {self._synonyms[" ".join(word.split())] for word in self._words.findall(text.lower())}
        return tuple(name for name in self.names if name in found)

    def words_of(self, name: str) -> tuple[str, ...]:
        """The words for an emotion: its canonical name and synonyms, in lower case, in the file's order."""
        return tuple(word for word, known in self._synonyms.items() if known == name)

    @functools.cached_property
    def _words(self) -> re.Pattern[str]:
        longest_first = sorted(self._synonyms, key=lambda word: (-len(word), word))
        words = (r"\s+".join(map(re.escape, word.split())) for word in longest_first)
        return re.compile(rf"\b(?:{'|'.join(words)})\b")

    def to(self, other: LabelSpace | str) -> Callable[[str | None], str | None]:
        """A function from this space's canonical names to those of `other`; None where there is no
        counterpart.

        A space without a map to `other` uses the map of `other` backwards; if that maps several labels to the
        same one, the first is the counterpart. So your own space needs a map to MAFW, but MAFW's file
        need not change.

        Raises:
            DataError: there is no such space, neither of the two declares a map, or the map ends in a name
                that the other does not have.
        """
        space = LabelSpace.load(other) if isinstance(other, str) else other
        if space.name == self.name:
            table: Mapping[str, str] = {name: name for name in self.names}
        elif space.name in self._maps:
            table = self._maps[space.name]
            _check_targets(self._shown, space.name, table, space.names, space._synonyms)
        elif self.name in space._maps:
            back = space._maps[self.name]
            _check_targets(space._shown, self.name, back, self.names, self._synonyms)
            table = {back[name]: name for name in reversed(space.names) if name in back}
        else:
            raise DataError(
                f"label spaces {self.name!r} and {space.name!r} have no map to each other;"
                " add one under `maps` of either"
            )
        return lambda name: table.get(name or "")

    def has_id(self, label_id: int) -> bool:
        """Whether an emotion has this id in the data set's own files."""
        return label_id in self._names_of

    def name_of(self, label_id: int) -> str:
        """The canonical name of a data set's own id.

        Raises:
            DataError: the space has no such id (usually because a file is 0-based or renumbered).
        """
        if label_id in self._names_of:
            return self._names_of[label_id]
        low, high = min(self._names_of), max(self._names_of)
        raise DataError(
            f"label id {label_id} is not in {self.name}'s range {low}..{high}; the file has other"
            " numbers, use the data set's original one"
        )


def own_file(dataset: str) -> Path | None:
    """The file in `data/label_spaces` that decides a data set's space; None if it comes with the package."""
    return None if dataset in LabelSpace.shipped() else OWN_FOLDER / f"{dataset}.yaml"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Label(_Strict):
    id: int
    also: tuple[int, ...] = ()
    name: str
    synonyms: tuple[str, ...] | None = None


class _Shared(_Strict):
    """A file that shares another space."""

    uses: str
    name: str | None = None
    version: int | None = None


class _File(_Strict):
    """A file that describes a space of its own."""

    name: str
    version: int = 1
    labels: Annotated[tuple[_Label, ...], Field(min_length=1)]
    maps: dict[str, dict[str, str | None]] | None = None


@functools.cache
def _find(text: str, folder: str) -> LabelSpace:
    """The space of this name or file; rewards ask for it once per completion.

    Args:
        text: as for `LabelSpace.load`.
        folder: the working folder, in which names of own spaces and relative paths are looked up.
    """
    if text.endswith((".yaml", ".yml")):
        return _load(Path(folder, text).resolve(), text)
    shipped = _FOLDER / f"{text}.yaml"
    path = shipped if shipped.is_file() else OWN_FOLDER / f"{text}.yaml"
    return _load(Path(folder, path).resolve(), str(path))


def label_space_faults(workspace: Path, datasets: Iterable[str]) -> list[str]:
    """What is wrong in the files of these data sets' own spaces, before anything runs.

    A file that is missing is not looked at: it is a dependency of `ingest`, and reported as one.

    Args:
        workspace: top of the repository.
        datasets: names; those of spaces that come with the package need no file.
    """
    faults = []
    for file in (own_file(name) for name in dict.fromkeys(datasets)):
        if file is None or not (workspace / file).is_file():
            continue
        try:
            _load((workspace / file).resolve(), str(file))
        except DataError as error:
            faults.append(str(error))
    return faults


@functools.cache
def _load(path: Path, shown: str) -> LabelSpace:
    """Loads a file.

    Args:
        path: absolute.
        shown: the path to show in messages.
    """
    file = _read(path, shown)
    return LabelSpace.load(file.uses) if isinstance(file, _Shared) else _checked(path, shown, file)


def _read(path: Path, shown: str) -> _File | _Shared:
    """What a file says, as far as it can be checked by itself."""
    if not path.is_file():
        shipped = ", ".join(LabelSpace.shipped())
        raise DataError(
            f"label space {path.stem!r} not found; give one of {shipped}, or write {OWN_FOLDER}/{path.name}"
        )
    raw = _yaml(path, shown)
    try:
        if isinstance(raw, dict) and raw.get("uses") is not None:
            shared = _Shared.model_validate(raw)
            if shared.uses not in LabelSpace.shipped():
                raise DataError(
                    f"{shown}: uses {shared.uses!r}, expected a space that comes with the package:"
                    f" {', '.join(LabelSpace.shipped())}"
                )
            return shared
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise DataError(f"{shown}: {_fault(error)}") from error
    if file.name != path.stem and path.parent in (_FOLDER, OWN_FOLDER.resolve()):
        raise DataError(f"{shown}: `name` is {file.name!r}, expected {path.stem!r}, the name of the file")
    return file


def _yaml(path: Path, shown: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: not UTF-8 (byte {error.start}); save it again in UTF-8") from error
    except OSError as error:
        raise DataError(f"{shown}: can't be read ({error.strerror or error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be parsed"
        raise DataError(f"{shown}{where}: not YAML: {problem}; fix that line") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # PyYAML lets the errors of its own converters through.
        raise DataError(f"{shown}: not YAML: {' '.join(str(error).split())}; correct it") from None


def _fault(error: ValidationError) -> str:
    """What is wrong in the first place that differs from what is expected, in one sentence."""
    faults = error.errors()
    first = faults[0]
    inside: type[BaseModel] = _Shared if error.title == _Shared.__name__ else _File
    place, where = list(first["loc"]), ""
    if place[:1] == ["labels"] and len(place) > 1:
        inside, where, place = _Label, f"label {int(place[1]) + 1} ", place[2:]
    expected = f"expected {', '.join(inside.model_fields)}"
    if first["type"] == "model_type":
        return f"{where}is not a mapping, found {reprlib.repr(first['input'])}; {expected}"
    beside = [
        (str(item["loc"][-1]), item["type"]) for item in faults if item["loc"][:-1] == first["loc"][:-1]
    ]
    lacking = [f"lacks {key!r}" for key, kind in beside if kind == "missing"]
    unknown = [f"has an unknown key {key!r}" for key, kind in beside if kind == "extra_forbidden"]
    if first["type"] in ("missing", "extra_forbidden"):
        return f"{where}{' and '.join(lacking + unknown)}; {expected}"
    wanted = _WANTED.get(first["type"], first["msg"])
    return f"{where}{'.'.join(map(str, place))}: {wanted}, found {reprlib.repr(first['input'])}"


def _checked(path: Path, shown: str, file: _File) -> LabelSpace:
    ids = {label.name: label.id for label in file.labels}
    names_of = {number: label.name for label in file.labels for number in (label.id, *label.also)}
    if len(ids) != len(file.labels) or len(names_of) != sum(1 + len(label.also) for label in file.labels):
        raise DataError(f"{shown}: label ids and names must be unique")
    if list(ids.values()) != sorted(ids.values()):
        raise DataError(f"{shown}: labels must be listed in the order of their ids")
    synonyms = _synonyms(shown, file)
    maps: dict[str, dict[str, str]] = {}
    for target, table in (file.maps or {}).items():
        unknown = sorted(set(table) - set(ids))
        if unknown:
            raise DataError(f"{shown}: map to {target} starts from unknown label {unknown[0]!r}")
        maps[target] = {name: there for name, there in table.items() if there is not None}
        other = _target(path.parent, target)  # one that is not there is checked where the map is used
        if other is not None:
            names = tuple(label.name for label in other.labels)
            _check_targets(shown, target, maps[target], names, _synonyms(target, other))
    return LabelSpace(file.name, file.version, tuple(ids), ids, names_of, synonyms, maps, shown)


def _plain(text: str) -> str:
    """A name or synonym without case, runs of white space and punctuation around it."""
    return " ".join(text.strip(_EDGES).lower().split())


def _synonyms(shown: str, file: _File) -> dict[str, str]:
    """Word -> canonical name."""
    synonyms: dict[str, str] = {}
    for label in file.labels:
        for word in (label.name, *(label.synonyms or ())):
            key = _plain(word)
            if not key:
                raise DataError(
                    f"{shown}: {label.name!r} has the name or synonym {word!r}, which has no letter"
                )
            if synonyms.setdefault(key, label.name) != label.name:
                raise DataError(f"{shown}: {key!r} names both {synonyms[key]} and {label.name}")
    return synonyms


def _target(folder: Path, name: str) -> _File | None:
    """The file of the space that a map leads to: a shipped one, or one beside; its own maps stay unread."""
    for path, shown in ((_FOLDER / f"{name}.yaml", name), (folder / f"{name}.yaml", f"{name}.yaml")):
        if path.is_file():
            file = _read(path, shown)
            return _target(_FOLDER, file.uses) if isinstance(file, _Shared) else file
    return None


def _check_targets(
    shown: str, target: str, table: Mapping[str, str], names: Sequence[str], synonyms: Mapping[str, str]
) -> None:
    """Refuses a map that ends in something else than a canonical name: it would be counted as an emotion.

    Args:
        shown: the file with the map.
        target: the space that the map leads to.
        table: the map.
        names: canonical names of the target.
        synonyms: word -> canonical name of the target.
    """
    for name, there in table.items():
        if there in names:
            continue
        word = " ".join(there.lower().split())
        close = [word] if word in synonyms else difflib.get_close_matches(word, synonyms, n=1)
        hint = f"did you mean {synonyms[close[0]]}?" if close else f"expected one of {', '.join(names)}"
        raise DataError(f"{shown}: map to {target}: {name} ends in {there!r}, no name of {target}; {hint}")
