"""The `erv` command line. Each command lives in its own module, which is imported on demand."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from erv import __version__
from erv.commands.lazy import LazyGroup
from erv.errors import ErvError, SettingsError, full_disk

# Command name -> module of `erv.commands` that defines the click command `command`. In the order of use.
COMMANDS = {
    "stack": "stack",
    "connect": "connect",
    "doctor": "doctor",
    "params": "params",
    "sample-data": "sample_data",
    "data": "data",
    "run": "run",
    "accept": "accept",
    "gc": "gc",
    "repeat": "repeat",
    "sweep": "sweep",
    "verify": "verify",
    "publish": "publish",
    "evaluate": "evaluate",
    "traces": "traces",
    "lineage": "lineage",
    "compare": "compare",
    "figures": "figures",
    "study": "study",
    "explain": "explain",
    "predict": "predict",
    "serve": "serve",
    "app": "app",
    "export": "export",
    "import": "import_",
    "promote": "promote",
    "champions": "champions",
    "rollback": "rollback",
}
# Former command names. They still work, and print the new name.
FORMER = {"register": "publish"}


@click.group(
    cls=LazyGroup, modules=COMMANDS, former=FORMER, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="erv")
@click.pass_context
def command(context: click.Context) -> None:
    """Train, judge and ship models whose explanations of emotion agree with their answers.

    Run it from the top of the repository. The pipeline itself is `dvc repro` or `make demo`.
    """
    # `erv stack` must see the user's own variables, to say which ones to unset. It and the doctor also work
    # when stack.env is damaged.
    if context.invoked_subcommand != "stack":
        from erv.environment import isolate, keep_private, load_environment

        try:
            environment = load_environment()
            keep_private(environment)
            isolate(environment)
        except SettingsError:
            if context.invoked_subcommand != "doctor":
                raise


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error that the user can act on becomes one sentence and an exit code, no traceback."""
    try:
        command.main(args=arguments, prog_name="erv")
    except ErvError as error:
        click.echo(f"error: {full_disk(error) or error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        # A full disk, say, or a folder without write permission: the system's error names the file.
        sentence = full_disk(error)
        if sentence is None and error.strerror is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"error: {sentence or f'{where}{error.strerror}'}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        from erv.libraries import missing_extra

        if error.name is None or (extra := missing_extra(error.name)) is None:
            raise
        click.echo(
            f"error: this command needs {error.name}, which is not installed; run"
            f" `pip install 'erv[{extra}]'`, or `make install` in a clone",
            err=True,
        )
        sys.exit(1)
    except Exception as error:  # a library's own exception for a full disk
        if (sentence := full_disk(error)) is None:
            raise
        click.echo(f"error: {sentence}", err=True)
        sys.exit(1)
