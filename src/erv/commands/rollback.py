"""`erv rollback`: go back to the previous champion."""

from __future__ import annotations

import click

from erv.commands.version import echo_registry, expected, spoken_gate


@click.command(name="rollback")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the champion's reign.")
@click.option("--force", is_flag=True, help="Also in spite of what refuses it; needs a --reason.")
@expected
def command(reason: str, force: bool, number: str | None) -> None:
    """Make the previous champion the champion again; later runs do not undo this.

    It is refused if the files of that version, or what it was made from, are not as they were registered, or
    if it learned from a clip that data/withdrawn.txt names, unless it is forced.
    """
    reason = reason.strip()
    if force and not reason:
        raise click.UsageError("--force needs a --reason")
    from erv.environment import isolate, load_environment
    from erv.lineage.withdrawal import WithdrawalGate
    from erv.register.aliases import rollback
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers
    from erv.tracking.origin import who

    environment, settings = load_environment(), load_settings()
    check_servers(environment, ("S3", "MLflow"))
    isolate(environment)
    said = rollback(
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
