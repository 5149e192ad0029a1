"""Profiles: named settings of the whole pipeline, kept as differences to the shipped `params.yaml`.

`demo` is what ships, `paper-0.5b` and `paper-7b` carry the method's published settings. A profile changes
parameters alone: stages, classes and servers are the same. DVC reads `params.yaml` and nothing else, so a
profile takes effect by being written into it (`erv params use NAME`), comments and all else kept.
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
from erv.settings import Settings, load_settings, parse_settings

MACHINE = "machine"
FOLDER = Path(__file__).with_name("profiles")
_ABSENT = object()


@dataclass(frozen=True)
class Profile:
    """A named setting.

    Attributes:
        name: as `erv params use` takes it.
        title: what it is, in a few words.
        policy: the base model that it was made for, a name of `erv.doctor.policy_sizes.RELEASED`, or None for
            any.
        adjustable: dotted names, or beginnings of such, whose values are not the method: `machine`, and what
            a run may choose though results depend on it, such as device, adapters or fold.
        params: the differences, by section as in `params.yaml`.
    """

    name: str
    title: str
    policy: str | None
    adjustable: tuple[str, ...]
    params: Mapping[str, Any]

    def is_adjustable(self, name: str) -> bool:
        """Whether another value of this parameter is the same setting on another machine."""
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
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def names() -> list[str]:
    """The profiles there are: the demo first, then by name."""
    found = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(found, key=lambda name: name != "demo")


def load_profile(name: str) -> Profile:
    """The profile of this name.

    Raises:
        SettingsError: there is none.
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
    """The parameters of a file that are not the profile's, in the profile's order.

    Raises:
        SettingsError: the file has faults.
    """
    return _differences(load_settings(path).model_dump(by_alias=True), profile)


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
    """The settings that a file would have with the profile in it; the file stays as it is.

    Args:
        profile: the profile.
        path: the parameters.
        keep_adjusted: leave the profile's adjustable parameters as the file has them.

    Raises:
        SettingsError: the file has faults, or has them with the profile.
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
    """The file's settings where the profile is in it, what is a matter of the machine as the file has it.

    Else those that the file would have with the profile.

    Raises:
        SettingsError: the file has faults, or has them with the profile.
    """
    applied = all(profile.is_adjustable(item.name) for item in differences(profile, path))
    return merged(profile, path, keep_adjusted=applied)


def use(profile: Profile, path: Path = Path("params.yaml")) -> list[Difference]:
    """Writes a profile into a file of parameters; comments, order and all other parameters stay.

    Returns:
        What changed; without any change the file is not written.

    Raises:
        SettingsError: the file has faults, or would have them; it is then left as it is.
    """
    changes = differences(profile, path)
    if not changes:
        return []
    editor = _editor()
    document = editor.load(path.read_text(encoding="utf-8"))
    # From the same library: it keeps how a number was written, and 1.0e-6 must not become a text.
    wanted = editor.load((FOLDER / f"{profile.name}.yaml").read_text(encoding="utf-8"))["params"]
    for change in changes:
        *sections, last = change.name.split(".")
        inside, source = document, wanted
        for section in sections:
            inside, source = inside[section], source[section]
        inside[last] = source[last]
    stream = io.StringIO()
    editor.dump(document, stream)
    content = stream.getvalue()
    parse_settings(yaml.safe_load(content), source=f"{path} with profile {profile.name}")
    write_text(content, path)
    return changes


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters by dotted name."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _editor() -> Any:
    """A YAML reader and writer that keeps what it does not change, laid out as `params.yaml` is."""
    from ruamel.yaml import YAML

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    editor.indent(mapping=2, sequence=4, offset=2)
    editor.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return editor
