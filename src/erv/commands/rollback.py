"""`erv rollback`: go back to the previous champion."""

from __future__ import annotations

import click


@click.command(name="rollback")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the champion's reign.")
def command(reason: str) -> None:
    """Make the previous champion the champion again; later runs do not undo this."""
    from erv.environment import isolate, load_environment
    from erv.register.aliases import rollback
    from erv.settings import load_settings
    from erv.tracking.origin import who

    environment = load_environment()
    isolate(environment)
    click.echo(rollback(environment, load_settings(), by=who(), reason=reason))
