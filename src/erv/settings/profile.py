"""Profiles: named settings of the whole pipeline, stored as differences from the shipped `params.yaml`.

`demo` is the default; `paper-0.5b` and `paper-7b` hold the method's published settings, and `tiny` is a run
of minutes that only shows that everything works. A profile changes parameters only: stages, classes and
servers are the same. DVC reads only `params.yaml`, so a profile takes effect when `erv params use NAME`
writes it into that file, which keeps comments and all other parameters.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from erv.errors import SettingsError
from erv.files import write_text
from erv.parameters import flat
from erv.settings import Settings, load_settings, parse_settings

DEMO = "demo"
MACHINE = "machine"
FOLDER = Path(__file__).with_name("profiles")
_ABSENT = object()


@dataclass(frozen=True)
class Profile:
    """A named setting.

    Attributes:
        name: the name that `erv params use` takes.
        title: a short description.
        policy: the base model it was made for, a name in `erv.doctor.policy_sizes.RELEASED`, or None for any.
        adjustable: dotted names or prefixes of parameters that are not part of the method: `machine`, and
            those that affect results but are up to each run, such as device, adapters or fold.
        params: the differences, by section as in `params.yaml`.
    """

    name: str
    title: str
    policy: str | None
    adjustable: tuple[str, ...]
    params: Mapping[str, Any]

    def is_adjustable(self, name: str) -> bool:
        """Whether this parameter may differ without leaving the setting."""
        return any(name == item or name.startswith(f"{item}.") for item in self.adjustable)


@dataclass(frozen=True)
class Difference:
    """A parameter that differs: its dotted name, its value in `params.yaml` and that of the profile."""

    name: str
    found: Any
    wanted: Any

    def __str__(self) -> str:
        return f"{self.name} {text(self.found)} (profile: {text(self.wanted)})"


def text(value: Any) -> str:
    """A value as YAML writes it."""
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=4096).strip()
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def names() -> list[str]:
    """The names of all profiles: the demo first, then alphabetically."""
    found = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(found, key=lambda name: name != DEMO)


def load_profile(name: str) -> Profile:
    """Loads the profile of this name.

    Raises:
        SettingsError: there is no such profile.
    """
    if name not in names():
        raise SettingsError(f"no profile {name!r}, expected one of {', '.join(names())}")
    raw = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return Profile(
        name=name,
        title=raw["title"],
        policy=raw["policy"],
        adjustable=(MACHINE, *raw["adjustable"]),
        params=raw["params"],
    )


def differences(profile: Profile, path: Path = Path("params.yaml")) -> list[Difference]:
    """The parameters of a file that differ from the profile, in the profile's order.

    Raises:
        SettingsError: the file has faults.
    """
    return _differences(load_settings(path).model_dump(mode="json", by_alias=True), profile)


def _differences(params: Mapping[str, Any], profile: Profile) -> list[Difference]:
    found = []
    for name, wanted in flat(profile.params).items():
        value: Any = params
        for part in name.split("."):
            value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value != wanted:
            found.append(Difference(name, value, wanted))
    return found


def merged(profile: Profile, path: Path = Path("params.yaml"), *, keep_adjusted: bool = False) -> Settings:
    """The settings of a file with the profile applied; the file is not changed.

    Args:
        profile: the profile.
        path: the parameters.
        keep_adjusted: keep the file's values of the profile's adjustable parameters.

    Raises:
        SettingsError: the file has faults, or would have some with the profile.
    """
    params = load_settings(path).model_dump(mode="json", by_alias=True)
    for name, value in flat(profile.params).items():
        if keep_adjusted and profile.is_adjustable(name):
            continue
        *sections, last = name.split(".")
        inside = params
        for section in sections:
            inside = inside[section]
        inside[last] = copy.deepcopy(value)
    return parse_settings(params, source=f"{path} with profile {profile.name}")


def merged_where_needed(profile: Profile, path: Path = Path("params.yaml")) -> Settings:
    """The settings of a file if the profile is already in it, else those with the profile applied.

    A profile is in a file if only adjustable parameters differ. Those then keep the file's values.

    Raises:
        SettingsError: the file has faults, or would have some with the profile.
    """
    applied = all(profile.is_adjustable(item.name) for item in differences(profile, path))
    return merged(profile, path, keep_adjusted=applied)


def _left_over(profile: Profile, path: Path) -> list[Difference]:
    """What another profile that is in the file changed, and this one doesn't set: the demo's values."""
    params = flat(load_settings(path).model_dump(mode="json", by_alias=True))
    shipped = flat(load_profile(DEMO).params)
    others = (load_profile(name) for name in names() if name not in (DEMO, profile.name))
    changed = [
        name
        for other in others
        if all(other.is_adjustable(item.name) for item in differences(other, path))
        for name in flat(other.params)
    ]
    return [
        Difference(name, params[name], shipped[name])
        for name in dict.fromkeys(changed)
        if name not in flat(profile.params) and params[name] != shipped[name]
    ]


def use(profile: Profile, path: Path = Path("params.yaml")) -> list[Difference]:
    """Writes a profile into a parameter file; comments, order and all other parameters stay.

    If the file has another profile, what only that one sets goes back to the demo's values.

    Returns:
        What changed; if nothing did, the file is not written.

    Raises:
        SettingsError: the file has faults, or would have some; it is then left unchanged.
    """
    left = _left_over(profile, path)
    changes = [*differences(profile, path), *left]
    if not changes:
        return []
    editor = _editor()
    document = editor.load(path.read_text(encoding="utf-8"))
    # Read with the same library, which keeps how a number is written: 1.0e-6 must not become a string.
    wanted, shipped = (
        editor.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["params"]
        for name in (profile.name, DEMO)
    )
    for change in changes:
        *sections, last = change.name.split(".")
        inside, source = document, shipped if change in left else wanted
        for section in sections:
            inside, source = inside[section], source[section]
        inside[last] = _in_blocks(source[last])
    stream = io.StringIO()
    editor.dump(document, stream)
    content = stream.getvalue()
    parse_settings(yaml.safe_load(content), source=f"{path} with profile {profile.name}")
    write_text(content, path)
    return changes


def _editor() -> Any:
    """A YAML editor with DVC's layout, so that neither rewrites what the other wrote."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes = True
    editor.default_flow_style = False
    return editor


def _in_blocks(value: Any) -> Any:
    """A value without the layout that it had in the profile: its lists are written in blocks."""
    if isinstance(value, Mapping):
        return {key: _in_blocks(item) for key, item in value.items()}
    return [_in_blocks(item) for item in value] if isinstance(value, list) else value
