"""Parameters by dotted name: all of a `params.yaml`, and where two sets of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erv.errors import SettingsError
from erv.files import parse_yaml

PARAMETERS = "params.yaml"
WITHOUT_EFFECT = "machine."  # no stage depends on this section
ABSENT = "absent"
_BRIEF = 60  # characters of a value that a sentence has room for


@dataclass(frozen=True)
class Change:
    """A parameter that differs; `before` and `now` are texts as in YAML, or `absent`."""

    name: str
    before: str
    now: str

    def text(self) -> str:
        """`grpo.beta 0.1 → 0.02`."""
        return f"{self.name} {self.before} → {self.now}"

    def brief(self) -> str:
        """The same for a sentence: of long lists, how many items differ; other long values are cut."""
        if max(len(self.before), len(self.now)) <= _BRIEF:
            return self.text()
        before, now = _items(self.before), _items(self.now)
        if before is None or now is None:
            return f"{self.name} {_cut(self.before)} → {_cut(self.now)}"
        added, gone = (
            [item for item in one if item not in other] for one, other in ((now, before), (before, now))
        )
        counts = ((len(added), "added"), (len(gone), "gone"))
        said = ", ".join(f"{count} {word}" for count, word in counts if count)
        return f"{self.name}: {said or 'in another order'}"


def parse(content: bytes) -> dict[str, Any]:
    """All parameters of a `params.yaml`; a list is one value.

    Raises:
        SettingsError: it is not a mapping of sections.
    """
    try:
        raw = parse_yaml(content)
    except ValueError as error:
        raise SettingsError(f"{PARAMETERS}: {error}; correct it, or restore it from git") from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{PARAMETERS}: expected a mapping of sections, found {type(raw).__name__}")
    return flat(raw)


def flat(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Nested parameters by dotted name, such as `grpo.beta`; a list is one value."""
    return dict(_flat(sections))


def read(workspace: Path) -> bytes:
    """The `params.yaml` of a workspace.

    Raises:
        SettingsError: it has none.
    """
    try:
        return (workspace / PARAMETERS).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{PARAMETERS}: can't be read ({error.strerror}); run this from the top of the repository"
        ) from None


def decides(name: str) -> bool:
    """Whether the parameter of this name can change a result."""
    return not name.startswith(WITHOUT_EFFECT)


def as_texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Values as they are written in YAML: `true`, `null`, `0.02`, `[mafw, dfew]`, a text without quotes."""
    return {name: _text(value) for name, value in parameters.items()}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    """Where two sets of parameters differ, in the order of the present one, then what it lacks."""
    return [
        Change(name, before.get(name, ABSENT), now.get(name, ABSENT))
        for name in dict.fromkeys([*now, *before])
        if before.get(name, ABSENT) != now.get(name, ABSENT)
    ]


def _flat(section: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _items(text: str) -> list[Any] | None:
    """The items of a list as `_text` writes one of mappings or lists; None if it is no such list."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def _cut(text: str) -> str:
    return text if len(text) <= _BRIEF else f"{text[:_BRIEF]}…"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)
