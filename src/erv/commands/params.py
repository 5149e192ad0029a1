"""`erv params`: check the parameters, list them, compare them with a profile, or apply one."""

from __future__ import annotations

from pathlib import Path

import click

from erv.errors import ExitCode


def _chosen(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Makes `--file` of a subcommand the file that it reads."""
    if path is not None:
        context.obj = path


_HELP = "The parameters to read."
_file = click.option(
    "--file",
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_chosen,
    help=_HELP,
)


@click.group(name="params", invoke_without_command=True)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help=_HELP,
)
@click.option("--profile", default=None, metavar="NAME", help="Show what differs from this profile.")
@click.pass_context
def command(context: click.Context, path: Path, profile: str | None) -> None:
    """Check params.yaml and print every fault at once (the same as `erv params check`).

    A profile is a named set of parameters of the whole pipeline: demo (shipped), tiny, paper-0.5b, paper-7b.
    """
    context.obj = path
    if context.invoked_subcommand is not None:
        if profile is not None:
            raise click.UsageError("--profile takes no subcommand; `erv params use NAME` applies a profile")
        return
    context.invoke(check)
    if profile is not None:
        _compare(path, profile)


@command.command()
@_file
@click.pass_obj
def check(path: Path) -> None:
    """Check the parameters, and the label spaces beside them; exit code 2 when there are faults."""
    from erv.errors import SettingsError
    from erv.labels import label_space_faults
    from erv.settings import load_settings

    wrong = label_space_faults(path.parent, load_settings(path).datasets)
    if wrong:
        raise SettingsError("\n".join(wrong))
    click.echo(f"{path}: no faults")


@command.command()
@click.argument("prefix", default="")
@_file
@click.pass_obj
def show(path: Path, prefix: str) -> None:
    """Print the parameters by dotted name: all of them, or those that begin with PREFIX.

    The names are those that `dvc exp run -S NAME=VALUE` takes.
    """
    from erv.errors import SettingsError
    from erv.settings import load_settings
    from erv.tracking.names import flatten

    values = flatten(load_settings(path).model_dump(by_alias=True))
    chosen = {name: value for name, value in values.items() if name.startswith(prefix)}
    if not chosen:
        raise SettingsError(f"{path}: no parameter begins with {prefix!r}; `erv params show` lists all")
    for name, value in chosen.items():
        click.echo(f"{name}: {value}")


@command.command()
@click.argument("prefix", default="")
@_file
@click.pass_obj
def reruns(path: Path, prefix: str) -> None:
    """Say which stages run again when a parameter changes, of all or of those that begin with PREFIX.

    Computed from dvc.yaml, so --file must be the params.yaml beside it. Stages named after "if these change"
    run again only if what they read is another.
    """
    if path.name != "params.yaml":
        raise click.UsageError(
            f"--file {path}: `reruns` asks DVC, which reads params.yaml; name that file or leave --file out"
        )
    from erv.doctor.reruns import all_reruns
    from erv.errors import SettingsError

    chosen = [item for item in all_reruns(path.parent) if item.name.startswith(prefix)]
    if not chosen:
        raise SettingsError(f"{path}: no parameter begins with {prefix!r}; `erv params show` lists all")
    for item in chosen:
        click.echo(str(item))


@command.command()
@click.argument("name")
@_file
@click.pass_obj
def use(path: Path, name: str) -> None:
    """Write the profile NAME into the parameters and list what changed; comments and the rest stay.

    `erv params use demo` restores the parameters as shipped.
    """
    from erv.settings import profile

    chosen = profile.load_profile(name)
    changes = profile.use(chosen, path)
    for change in changes:
        click.echo(f"{change.name}: {profile.text(change.found)} -> {profile.text(change.wanted)}")
    if not changes:
        click.echo(f"{path}: is {name} already ({chosen.title})")
        return
    click.echo(f"{path}: {len(changes)} parameters are now those of {name} ({chosen.title})")
    click.echo(f"`erv doctor --profile {name}` says what this machine lacks for it")


def _compare(path: Path, name: str) -> None:
    """Prints the differences from a profile; exit code 1 unless all of them are matters of the machine."""
    from erv.settings import profile

    chosen = profile.load_profile(name)
    found = profile.differences(chosen, path)
    for difference in found:
        note = "  # a matter of the machine" if chosen.is_adjustable(difference.name) else ""
        click.echo(f"{difference}{note}")
    others = [item for item in found if not chosen.is_adjustable(item.name)]
    if others:
        click.echo(
            f"{path}: {len(others)} parameters are not those of {name}; `erv params use {name}` writes them",
            err=True,
        )
        raise SystemExit(ExitCode.ERROR)
    click.echo(f"{path}: the setting of {name} ({chosen.title})")
