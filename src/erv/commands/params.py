"""`erv params`: check the parameters, show them flat."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(name="params", invoke_without_command=True)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The parameters to read.",
)
@click.pass_context
def command(context: click.Context, path: Path) -> None:
    """Check params.yaml and print every fault at once (the same as `erv params check`)."""
    context.obj = path
    if context.invoked_subcommand is None:
        context.invoke(check)


@command.command()
@click.pass_obj
def check(path: Path) -> None:
    """Check the parameters; exit code 2 when there are faults."""
    from erv.settings import load_settings

    load_settings(path)
    click.echo(f"{path}: no faults")


@command.command()
@click.argument("prefix", default="")
@click.pass_obj
def show(path: Path, prefix: str) -> None:
    """Print the parameters as dotted names, all or those that begin with PREFIX.

    The names are those that `dvc exp run -S NAME=VALUE` takes.
    """
    from erv.errors import SettingsError
    from erv.settings import load_settings
    from erv.tracking import flatten

    values = flatten(load_settings(path).model_dump(by_alias=True))
    chosen = {name: value for name, value in values.items() if name.startswith(prefix)}
    if not chosen:
        raise SettingsError(f"{path}: no parameter begins with {prefix!r}; `erv params show` lists all")
    for name, value in chosen.items():
        click.echo(f"{name}: {value}")
