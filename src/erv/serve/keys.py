"""The keys of `erv serve`, which come from the environment and don't stay there."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from erv.errors import SettingsError

KEY_VARIABLE = "ERV_SERVE_KEY"
HOSTS_VARIABLE = "ERV_SERVE_HOSTS"
SHORTEST = 16  # characters; a shorter key can be guessed


def take_keys(variables: MutableMapping[str, str] = os.environ) -> tuple[str, ...]:
    """The keys in `ERV_SERVE_KEY`, with commas between them; () without any.

    The variable is removed, so that no process that is started later has it.

    Raises:
        SettingsError: a key is too short, has characters that a header can't have, or is there twice.
    """
    keys = tuple(part.strip() for part in variables.pop(KEY_VARIABLE, "").split(","))
    if keys == ("",):
        return ()
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise SettingsError(
                f"{KEY_VARIABLE}: key {number} of {len(keys)} can't be used; a key has at least {SHORTEST}"
                " letters, digits and signs of ASCII, without spaces and commas"
            )
    if len(set(keys)) < len(keys):
        raise SettingsError(f"{KEY_VARIABLE} has a key twice; give each client its own")
    return keys


def further_hosts(variables: MutableMapping[str, str] = os.environ) -> tuple[str, ...]:
    """The names in `ERV_SERVE_HOSTS`, with commas between them."""
    return tuple(name.strip() for name in variables.get(HOSTS_VARIABLE, "").split(",") if name.strip())
