"""`erv rollback`: go back to the previous champion."""

from __future__ import annotations

import click

from erv.commands.version import expected


@click.command(name="rollback")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the champion's reign.")
@expected
def command(reason: str, number: str | None) -> None:
    """Make the previous champion the champion again; later runs do not undo this."""
    from erv.environment import isolate, load_environment
    from erv.register.aliases import rollback
    from erv.settings import load_settings
    from erv.tracking.origin import who

    environment = load_environment()
    isolate(environment)
    click.echo(
        rollback(environment, load_settings(), by=who(environment.workspace), reason=reason, expected=number)
    )
