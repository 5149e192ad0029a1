"""Keys and names of our servers, which come from the environment; keys don't stay there."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from erv.errors import SettingsError

SHORTEST = 16  # characters; a shorter key can be guessed


def take_keys(variable: str, variables: MutableMapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys in a variable such as `ERV_SERVE_KEY`, with commas between them; () without any.

    The variable is removed, so that no process that is started later has it.

    Raises:
        SettingsError: a key is too short, has characters that a header can't have, or is there twice.
    """
    keys = tuple(part.strip() for part in variables.pop(variable, "").split(","))
    if keys == ("",):
        return ()
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise SettingsError(
                f"{variable}: key {number} of {len(keys)} can't be used; a key has at least {SHORTEST}"
                " letters, digits and signs of ASCII, without spaces and commas"
            )
    if len(set(keys)) < len(keys):
        raise SettingsError(f"{variable} has a key twice; give each client its own")
    return keys


def further_hosts(variable: str, variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The names in a variable such as `ERV_SERVE_HOSTS`, with commas between them."""
    return tuple(name.strip() for name in variables.get(variable, "").split(",") if name.strip())
