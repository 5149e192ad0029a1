"""`erv promote`: make a version champion by hand."""

from __future__ import annotations

import click

from erv.commands.version import echo_registry, expected, spoken_gate


@click.command(name="promote")
@click.argument("version", default="challenger")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the champion's reign.")
@click.option("--force", is_flag=True, help="Also if it did not pass its gates; needs a --reason.")
@expected
def command(version: str, reason: str, force: bool, number: str | None) -> None:
    """Make VERSION (a number or an alias, by default the challenger) the champion.

    It is refused if the version did not pass its gates, if its files or what it was made from are not as they
    were registered, or if it learned from a clip that data/withdrawn.txt names, unless it is forced. Who,
    when and why is kept; `erv champions` shows it.
    """
    reason = reason.strip()
    if force and not reason:
        raise click.UsageError("--force needs a --reason")
    from erv.environment import isolate, load_environment
    from erv.lineage.withdrawal import WithdrawalGate
    from erv.register.aliases import promote
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers
    from erv.tracking.origin import who

    environment, settings = load_environment(), load_settings()
    check_servers(environment, ("S3", "MLflow"))
    isolate(environment)
    said = promote(
        version,
        environment,
        settings,
        by=who(environment.workspace),
        lineage=spoken_gate(environment, settings),
        withdrawn=WithdrawalGate(environment, settings),
        reason=reason,
        force=force,
        expected=number,
    )
    click.echo(said)
    echo_registry(environment)
