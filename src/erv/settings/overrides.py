"""What `params.yaml` says with a profile and single parameters set, checked as a whole before it is written.

Values are written as `dvc exp run -S` takes them, and DVC's own code sets them, so that comments and layout
stay as DVC leaves them.
"""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.errors import SettingsError
from erv.files import parse_yaml
from erv.parameters import PARAMETERS, Change, as_texts, changes, parse
from erv.settings.profile import load_profile, use
from erv.settings.settings import load_settings, parse_settings

# A dotted name, `=` and a value. DVC's grammar has more (`+new=1`, `~gone`), which would add or drop what the
# pipeline doesn't know or needs.
_FORM = re.compile(r"(?P<name>[A-Za-z_][\w-]*(?:\.[\w-]+)*)=(?P<value>.*)", re.DOTALL)
_EXAMPLE = "expected NAME=VALUE, such as grpo.beta=0.1"
_LIST = "; `erv params show` lists all parameters"
_OPEN = "variants."  # its entries may have parameters that the file doesn't name yet, such as another reward


@dataclass(frozen=True)
class Overridden:
    """A `params.yaml` with overrides.

    Attributes:
        content: of the file.
        changes: where it differs from what the file says now, in the file's order.
    """

    content: str
    changes: tuple[Change, ...]


def overridden(path: Path, profile: str | None, overrides: Sequence[str]) -> Overridden:
    """Sets a profile, then single parameters, in a copy of a parameter file; the file isn't changed.

    Args:
        path: the parameters.
        profile: as `erv params use` takes it; None for none.
        overrides: `grpo.beta=0.1`, each parameter once.

    Raises:
        SettingsError: the file has faults or would have some, there is no such profile or parameter, or an
            override isn't written as one.
    """
    load_settings(path)  # its own faults are told as such
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PARAMETERS
        shutil.copyfile(path, copy)
        if profile is not None:
            try:
                use(load_profile(profile), copy)
            except SettingsError as error:
                raise SettingsError(str(error).replace(str(copy), str(path))) from None
        known = list(parse(copy.read_bytes()))
        for override in _checked(overrides, known):
            _set(copy, override)
        content = copy.read_bytes()
    _check(content, f"{path} with {' and '.join(_named(profile, overrides))}")
    before, now = as_texts(parse(path.read_bytes())), as_texts(parse(content))
    return Overridden(content.decode(), tuple(changes(before, now)))


def _named(profile: str | None, overrides: Sequence[str]) -> list[str]:
    return [*([f"profile {profile}"] if profile else []), *overrides] or ["no change"]


def _checked(overrides: Sequence[str], known: Collection[str]) -> list[str]:
    """The overrides, if each names a parameter and none is named twice."""
    seen: dict[str, str] = {}
    for override in overrides:
        match = _FORM.fullmatch(override)
        if match is None or "${" in match["value"]:
            raise SettingsError(f"override {override!r}: {_EXAMPLE}")
        name = match["name"]
        if name not in known and not _may_be_added(name, known):
            raise SettingsError(f"override {override!r}: {_unknown(name, known)}")
        if name in seen:
            raise SettingsError(f"overrides {seen[name]!r} and {override!r} set the same parameter; give one")
        seen[name] = override
    return list(overrides)


def _may_be_added(name: str, known: Collection[str]) -> bool:
    """Whether a parameter belongs to a section whose names are free; whether it fits is checked later."""
    section = name.rpartition(".")[0]
    return name.startswith(_OPEN) and any(one.startswith(f"{section}.") for one in known)


def _unknown(name: str, known: Collection[str]) -> str:
    inside = [one for one in known if one.startswith(f"{name}.")]
    if inside:
        return f"{name} is a section; set one of its parameters, such as {inside[0]}"
    above = [one for one in known if name.startswith(f"{one}.")]
    if above:
        return f"{above[0]} is one value; set it as a whole"
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"there is no parameter {name}{meant}{_LIST if not close else ''}"


def _set(path: Path, override: str) -> None:
    """Has DVC set one parameter in a file."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    try:
        apply_overrides(path, [f"++{override}"])  # sets what is there, adds what is not
    except DvcException as error:
        reason = str(error.__cause__ or error).splitlines()[0].replace("++", "")
        raise SettingsError(
            f"override {override!r}: not a value that DVC reads ({reason}); write one value, a list as"
            " [a,b], and a text with commas, brackets or colons in quotes"
        ) from None


def _check(content: bytes, source: str) -> None:
    """Refuses parameters with faults; one fault is told in one sentence."""
    try:
        parse_settings(parse_yaml(content), source)
    except SettingsError as error:
        first, *faults = str(error).splitlines()
        if len(faults) != 1:
            raise
        raise SettingsError(f"{first.rpartition(': ')[0]}: {faults[0].strip().removeprefix('- ')}") from None
