"""The plan of a study: what raters are asked, in which order, and under which hash.

`studies/NAME/study.json` is the plan and `studies/NAME/key.json` says which policy wrote what. The plan never
names a policy, a data set or a clip's own id, so its items can be served; the key must not be.
`extension-N.json` beside them adds raters to a study that has begun, and leaves the plan and its hash as they
are.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from erv.errors import DataError, SettingsError
from erv.files import sha256_of_text
from erv.study.contents import (
    HIGHEST,
    KEY,
    LOWEST,
    NAME,
    RATINGS,
    VERSION,
    Design,
    Expected,
    Explanation,
    Extension,
    Item,
    Key,
    KeyItem,
    Kind,
    Panel,
    Plan,
    Seats,
    Texts,
)
from erv.study.pinning import check_pin

__all__ = [
    "HIGHEST",
    "KEY",
    "LOWEST",
    "MEDIA",
    "PLAN",
    "RATINGS",
    "TIE",
    "Design",
    "Expected",
    "Explanation",
    "Item",
    "Key",
    "KeyItem",
    "Panel",
    "Seats",
    "Study",
    "Texts",
    "extension_files",
    "folder_of",
    "read_key",
    "read_study",
]

_LOG = logging.getLogger(__name__)

STUDIES = Path("studies")
PLAN = "study.json"
MEDIA = "media"
TIE = "tie"
_EXTENSION = re.compile(r"extension-([1-9][0-9]{0,5})\.json(?:\.dvc)?")


class Study:
    """A plan as it was read, with the extensions that were there.

    Attributes:
        sha256: of the bytes of `study.json`. Every answer carries it.
        folder: where it lies.
    """

    def __init__(self, plan: Plan, sha256: str, folder: Path, seats: Seats) -> None:
        self._plan, self.sha256, self.folder, self._seats = plan, sha256, folder, seats
        self._items = {item.id: item for item in plan.items}

    @property
    def name(self) -> str:
        """Its name, as in `studies/NAME`."""
        return self._plan.name

    @property
    def version(self) -> int:
        """Version of the format."""
        return self._plan.version

    @property
    def space(self) -> str:
        """The label space of `emotions`."""
        return self._plan.space

    @property
    def emotions(self) -> tuple[str, ...]:
        """The labels that a rater chooses from, in the order of the label space."""
        return self._plan.emotions

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that the texts are there in, the first is the default."""
        return self._plan.languages

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Which kinds of item are asked."""
        return self._plan.kinds

    @property
    def texts(self) -> Mapping[str, Texts]:
        """What raters read, by language."""
        return self._plan.texts

    @property
    def consent(self) -> dict[str, tuple[str, ...]]:
        """The paragraphs of the consent, by language."""
        return {language: texts.consent for language, texts in self.texts.items()}

    @property
    def instructions(self) -> dict[str, tuple[str, ...]]:
        """The paragraphs of the instructions, by language."""
        return {language: texts.instructions for language, texts in self.texts.items()}

    @property
    def panel(self) -> Panel | None:
        """The panel that raters come from, if any."""
        return self._plan.panel

    @property
    def design(self) -> Design:
        """How many raters are asked about each item, and why."""
        return self._plan.design

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in the order of their ids."""
        return self._plan.items

    @property
    def media(self) -> Mapping[str, str]:
        """Blinded name of each clip -> SHA-256 of its file."""
        return self._plan.media

    @property
    def assignments(self) -> Mapping[str, tuple[str, ...]]:
        """Slot -> ids of its items, in the order in which they are asked; those of extensions come last."""
        return self._seats.assignments

    def asked(self, slot: str) -> tuple[str, ...]:
        """Ids of the items that a slot is asked, in order.

        Raises:
            DataError: no file of the study has this slot.
        """
        if slot not in self.assignments and not (self.look_again() and slot in self.assignments):
            raise DataError(
                f"study {self.name}: slot {slot!r}, which a rater has, is in no file of {self.folder};"
                " restore its extensions (extension-N.json and its .dvc file) from where it was extended"
            )
        return self.assignments[slot]

    def look_again(self) -> bool:
        """Takes in extensions that were written since the study was read; says whether there were any.

        So pages that are being served see them. Files that can't be read are logged and left for later: they
        may be being written, and nobody who answers can mend them.
        """
        try:
            seats = _all_seats(self.folder, self._plan, self.sha256)
        except DataError as error:
            _LOG.warning("the extensions of study %s are not looked at: %s", self.name, error)
            return False
        if not set(seats.assignments) > set(self.assignments):
            return False
        self._seats = seats
        return True

    def item(self, item_id: str) -> Item:
        """The item of this id.

        Raises:
            DataError: there is none.
        """
        if item_id not in self._items:
            raise DataError(f"study {self.name}: has no item {item_id!r}")
        return self._items[item_id]

    def shown(self, slot: str, item_id: str) -> tuple[Explanation, ...]:
        """The explanations of an item in the order in which this slot sees them, which is random.

        Raises:
            DataError: no file of the study has this slot, or there is no such item.
        """
        self.asked(slot)
        explanations = self.item(item_id).explanations
        return explanations[::-1] if item_id in self._seats.swapped.get(slot, ()) else explanations

    def clip_file(self, clip_id: str) -> Path:
        """The file of a clip.

        Raises:
            DataError: the plan names no such clip.
        """
        if clip_id not in self.media:
            raise DataError(f"study {self.name}: has no clip {clip_id!r}")
        return self.folder / MEDIA / f"{clip_id}.mp4"

    def check(self, item_id: str, value: Any) -> dict[str, Any]:
        """An answer as it is kept: exactly what the item asks.

        Args:
            item_id: the item.
            value: `{"emotion": label, "preferred": code or "tie"}` for a pair, and
                `{"emotion": label, "ratings": {name: 1..5}}` with all of `RATINGS` for a rating.

        Raises:
            DataError: it isn't; the message says what was expected.
        """
        item = self.item(item_id)
        asked = "preferred" if item.kind == "pair" else "ratings"
        if not isinstance(value, dict) or set(value) != {"emotion", asked}:
            raise DataError(f"item {item_id}: expected an answer with emotion and {asked}")
        emotion, said = value["emotion"], value[asked]
        if not isinstance(emotion, str) or emotion not in self.emotions:
            raise DataError(f"item {item_id}: emotion is none of {', '.join(self.emotions)}")
        if item.kind == "pair":
            choices = [*(explanation.code for explanation in item.explanations), TIE]
            if not isinstance(said, str) or said not in choices:
                raise DataError(f"item {item_id}: preferred is none of {', '.join(choices)}")
            return {"emotion": emotion, "preferred": said}
        if not isinstance(said, dict) or set(said) != set(RATINGS):
            raise DataError(f"item {item_id}: expected ratings of {', '.join(RATINGS)}")
        for name, number in said.items():
            if type(number) is not int or not LOWEST <= number <= HIGHEST:
                raise DataError(f"item {item_id}: {name} is no whole number from {LOWEST} to {HIGHEST}")
        return {"emotion": emotion, "ratings": {name: said[name] for name in RATINGS}}


def folder_of(name: str) -> Path:
    """The folder of the study of this name, below the working folder.

    Raises:
        SettingsError: it is no name: a path would lead elsewhere.
    """
    if not re.fullmatch(NAME, name):
        raise SettingsError(
            f"a study can't be called {name!r}; take at most 64 lower-case letters, digits, - and _, and give"
            f" the name alone, such as first for {STUDIES}/first"
        )
    return STUDIES / name


def read_study(folder: Path) -> Study:
    """Reads `study.json`, and the extensions beside it.

    Raises:
        DataError: a file is missing, damaged, of an unknown version, or belongs to another study.
    """
    path = folder / PLAN
    text = _text(path, f"run `erv study prepare {folder.name}`, or `dvc pull` if it was prepared elsewhere")
    plan, sha256 = _parsed(Plan, text, path), sha256_of_text(text)
    if plan.name != folder.name:
        raise DataError(f"{path}: is the study {plan.name!r}, expected {folder.name!r}; rename its folder")
    return Study(plan, sha256, folder, _all_seats(folder, plan, sha256))


def _all_seats(folder: Path, plan: Plan, sha256: str) -> Seats:
    """Those of the plan and its extensions; raises DataError as `read_study`."""
    path = folder / PLAN
    assignments, swapped = dict(plan.seats.assignments), dict(plan.seats.swapped)
    for source, seats in ((path, plan.seats), *_extensions(folder, sha256)):
        _check_seats(source, seats, plan)
        if source != path and (taken := sorted(set(seats.assignments) & set(assignments))):
            raise DataError(f"{source}: slot {taken[0]!r} is there already; delete one of the extensions")
        assignments.update(seats.assignments)
        swapped.update(seats.swapped)
    return Seats(assignments=assignments, swapped=swapped)


def read_key(study: Study) -> Key:
    """Reads the key of a study.

    Raises:
        DataError: it is missing, damaged, or that of another study.
    """
    path = study.folder / KEY
    key = _parsed(Key, _text(path, "get it from who prepared the study"), path)
    if key.study != study.sha256:
        raise DataError(
            f"{path}: is the key of another plan than {study.folder / PLAN}; restore both together"
        )
    if lacking := sorted({item.id for item in study.items} - set(key.items)):
        raise DataError(f"{path}: lacks item {lacking[0]!r}; restore it")
    return key


def extension_files(folder: Path) -> list[Path]:
    """The extensions of a study, in the order in which they were made.

    Their numbers begin with 1 and have no gap. One of which only the `.dvc` file is there counts, too:
    without its slots, nobody knows what raters who have them were shown.

    Raises:
        DataError: one is missing.
    """
    found = (_EXTENSION.fullmatch(path.name) for path in folder.glob("extension-*"))
    last = max((int(match[1]) for match in found if match), default=0)
    paths = [folder / f"extension-{number}.json" for number in range(1, last + 1)]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path}: not found, though the study was extended; `dvc pull {path}.dvc`, or restore both"
                " from where it was extended"
            )
    return paths


def _extensions(folder: Path, sha256: str) -> Iterator[tuple[Path, Seats]]:
    for path in extension_files(folder):
        extension = _parsed(Extension, _text(path, "restore it"), path)
        if extension.study != sha256:
            raise DataError(
                f"{path}: extends another plan than {folder / PLAN}; delete it, or restore the plan"
            )
        yield path, extension.seats


def _check_seats(path: Path, seats: Seats, plan: Plan) -> None:
    known = {item.id: item for item in plan.items}
    for slot, ids in seats.assignments.items():
        if not ids or len(set(ids)) != len(ids) or not set(ids) <= set(known):
            raise DataError(f"{path}: slot {slot!r} must list items of the plan, each once")
    for slot, ids in seats.swapped.items():
        if not set(ids) <= set(seats.assignments.get(slot, ())):
            raise DataError(f"{path}: slot {slot!r} swaps explanations of items that it isn't asked")


def _text(path: Path, remedy: str) -> str:
    try:
        content = path.read_bytes()
        check_pin(path, content)
        return content.decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: not found; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as UTF-8 text ({error}); {remedy}") from None


_Content = TypeVar("_Content", bound=BaseModel)


def _parsed(model: type[_Content], text: str, path: Path) -> _Content:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); restore it") from None
    if isinstance(raw, dict) and "version" in model.model_fields and raw.get("version") != VERSION:
        raise DataError(
            f"{path}: has version {raw.get('version')!r}, expected {VERSION}; it is damaged, or another erv's"
        )
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{path}: {f'{where}: ' if where else ''}{message}; restore it") from None
