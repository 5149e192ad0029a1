"""The command `erv`. Each command lives in a module of its own and is loaded when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

import click

from erv import __version__
from erv.errors import ErvError, SettingsError

# Command name -> module of `erv.commands`, whose `command` is the click command. In the order of use.
COMMANDS = {
    "stack": "stack",
    "doctor": "doctor",
    "params": "params",
    "sample-data": "sample_data",
    "data": "data",
    "run": "run",
    "verify": "verify",
    "publish": "publish",
    "lineage": "lineage",
    "promote": "promote",
    "rollback": "rollback",
}
# Names that commands had before, which still work and say the new one.
FORMER = {"register": "publish"}


class LazyGroup(click.Group):
    """A group whose commands are imported one by one, so that `--help` and errors come at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands there are, in the order of `COMMANDS`."""
        return [name for name, module in COMMANDS.items() if _exists(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; None if there is none of that name."""
        if cmd_name in FORMER:
            click.echo(f"erv {cmd_name} is now called erv {FORMER[cmd_name]}", err=True)
            cmd_name = FORMER[cmd_name]
        module = COMMANDS.get(cmd_name)
        if module is None or not _exists(module):
            return None
        command: click.Command = importlib.import_module(f"erv.commands.{module}").command
        return command


def _exists(module: str) -> bool:
    return importlib.util.find_spec(f"erv.commands.{module}") is not None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="erv")
@click.pass_context
def command(context: click.Context) -> None:
    """Train, judge and ship models whose explanations of emotion agree with their answers.

    Run it from the top of the repository. The pipeline itself is `dvc repro` or `make demo`.
    """
    # `erv stack` must see the user's own variables, to say which to unset; it and the doctor work where
    # stack.env is damaged.
    if context.invoked_subcommand != "stack":
        from erv.environment import isolate, load_environment

        try:
            isolate(load_environment())
        except SettingsError:
            if context.invoked_subcommand != "doctor":
                raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error that a user can act on is one sentence and an exit code, not a traceback."""
    try:
        command.main(args=arguments, prog_name="erv")
    except ErvError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A disk that is full, a folder that may not be written: the system's words name the file.
        if error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {where}{error.strerror}", err=True)
        sys.exit(1)
