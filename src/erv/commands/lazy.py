"""A group of commands that imports each one on demand, so that `--help` and errors appear at once."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are modules of `erv.commands`, each with a click command `command`.

    Args:
        modules: command name -> module, in the order of use.
        former: former name -> present name. Former names still work, and print the present one.
        kept: of `click.Group`.
    """

    def __init__(
        self, *args: Any, modules: Mapping[str, str], former: Mapping[str, str] | None = None, **kept: Any
    ) -> None:
        super().__init__(*args, **kept)
        self._modules, self._former = modules, former or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The available commands, in the order of use."""
        return [name for name, module in self._modules.items() if _exists(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; returns None if there is none of that name."""
        if cmd_name in self._former:
            click.echo(f"erv {cmd_name} is now called erv {self._former[cmd_name]}", err=True)
            cmd_name = self._former[cmd_name]
        module = self._modules.get(cmd_name)
        if module is None or not _exists(module):
            return None
        command: click.Command = importlib.import_module(f"erv.commands.{module}").command
        return command


def _exists(module: str) -> bool:
    return importlib.util.find_spec(f"erv.commands.{module}") is not None
