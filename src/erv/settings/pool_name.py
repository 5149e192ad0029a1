"""Names of work pools that stages are placed in, wherever they are given: a file, an option, a form."""

from __future__ import annotations

import re
from typing import Annotated

from erv.errors import SettingsError
from erv.settings.section import of_form

# As Prefect takes them, and short enough to be read.
PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_FORM = "1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or a digit"

PoolName = Annotated[str, of_form(PATTERN, _FORM)]


def check_pool_name(name: str) -> None:
    """Refuses a name that no placement could name.

    Raises:
        SettingsError: it is none.
    """
    if re.fullmatch(PATTERN, name) is None:
        raise SettingsError(f"{name!r} can't be the name of a work pool; expected {_FORM}")
