"""`erv stack`: the local servers."""

from __future__ import annotations

import click

from erv.errors import ExitCode


def _say_what_happens() -> None:
    from erv.environment import own_environment
    from erv.stage import configure_logging

    configure_logging(own_environment())


@click.group(name="stack")
def command() -> None:
    """Start and stop this workspace's own S3, MLflow and Prefect servers."""


@command.command()
@click.argument("services", nargs=-1, type=click.Choice(["s3", "mlflow", "prefect"]))
@click.option("--own", is_flag=True, help="Also in place of servers of others that this clone uses.")
def up(services: tuple[str, ...], own: bool) -> None:
    """Start the servers that are not running, all or only the named ones, and print their addresses.

    The first start takes about half a minute, because MLflow and Prefect create their tables. A clone that
    `erv connect` has connected to servers of others keeps using those, unless you say --own.
    """
    from erv import stack
    from erv.environment import recorded_servers
    from erv.stack.switch import overriding_variables, servers_text

    _say_what_happens()
    before = recorded_servers()
    environment = stack.up(names=services or ("s3", "mlflow", "prefect"), own=own)
    click.echo(f"S3       {environment.s3_endpoint or '-'}")
    click.echo(f"MLflow   {environment.mlflow_uri or '-'}")
    click.echo(f"Prefect  {environment.prefect_ui_url or '-'}")
    click.echo("MLflow's and Prefect's pages ask for a key once: `erv stack key` prints it.")
    click.echo(
        "Addresses and keys are in .erv/stack.env; your own AWS, MLflow and Prefect settings are untouched."
    )
    if before:
        click.echo(
            f"This clone was connected to {servers_text(before)}; it now uses its own stack. To return to"
            " them: `erv stack down`, then `erv connect`."
        )
    if names := overriding_variables():
        override = f"{', '.join(names)} override the stack in this shell"
        click.echo(f"warning: {override}; to use it: unset {' '.join(names)}", err=True)


@command.command()
def down() -> None:
    """Stop the servers; their data stays."""
    from erv import stack

    _say_what_happens()
    stopped = stack.down()
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@command.command()
def status() -> None:
    """Print the state of each server; exit code 1 unless all are running.

    In a clone that `erv connect` has connected to servers of others, these count: exit code 1 if one that can
    be asked doesn't answer.
    """
    from erv import stack
    from erv.stack.theirs import connected_status

    if theirs := list(connected_status()):
        click.echo("this clone is connected to servers of others, and runs none of its own", err=True)
        for server in theirs:
            click.echo(f"{server.name:8} {server.state:10} {server.url}")
        if any(server.state == "away" for server in theirs):
            raise SystemExit(ExitCode.ERROR)
        return
    states = stack.status()
    for service in states:
        click.echo(f"{service.name:8} {service.state:10} {service.url or '-':32} {service.pid or '-'}")
    if any(service.state != "running" for service in states):
        raise SystemExit(ExitCode.ERROR)


@command.command()
def key() -> None:
    """Print what the pages of MLflow and Prefect ask for.

    Give it only to people who may change everything there; `erv stack env --for-others` prints all they need.
    """
    from erv.environment import command_for, load_environment
    from erv.errors import StackError

    environment = load_environment(process={})  # in a connected clone without the keys of its own stack
    if not (environment.mlflow_token and environment.prefect_auth_string):
        if command_for("MLflow", environment.workspace) == "erv connect":
            raise StackError(
                "this clone uses servers of others, whose keys only they can tell; ask your team"
            )
        raise StackError("this workspace has no keys yet; run `erv stack up`")
    click.echo(f"MLflow   user erv, password {environment.mlflow_token}")
    click.echo(f"Prefect  {environment.prefect_auth_string}")


@command.command()
@click.option(
    "--for-others",
    is_flag=True,
    help="Instead, the ERV_* lines that a colleague needs before `erv connect`, keys included.",
)
def env(for_others: bool) -> None:
    """Print shell lines that point this shell's tools at our servers: eval "$(erv stack env)"."""
    from erv.environment import (
        connected_servers,
        lines_for_others,
        load_environment,
        remedy_for,
        shell_lines,
    )
    from erv.errors import StackError

    environment = load_environment()
    lines = lines_for_others(environment) if for_others else shell_lines(environment)
    if for_others and not lines:
        raise StackError("this clone names no servers to share; run `erv stack up`")
    for line in lines:
        click.echo(line)
    for server in connected_servers(environment):
        click.echo(f"warning: {remedy_for(server, environment.workspace)}", err=True)


@command.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
def clean(yes: bool) -> None:
    """Stop the servers and delete everything they have stored: objects, runs, registered models, flows."""
    from erv import stack

    if not yes:
        click.confirm(
            "Delete all objects, MLflow runs and models of this workspace's local stack?", abort=True
        )
    stack.clean()
    click.echo("deleted .erv/stack and .erv/stack.env")
