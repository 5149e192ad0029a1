"""`erv connect`: use servers that others run, from a clone."""

from __future__ import annotations

import click


@click.command(name="connect")
def command() -> None:
    """Check the servers that ERV_* variables name, and tell DVC where its remote is.

    Use it in a clone whose S3, MLflow and Prefect servers are your team's. It starts nothing. DVC's address
    and keys go to .dvc/config.local, which git ignores. Repeat it whenever a variable changes. In a shell
    that lacks the variables of a connected clone, it lists them. A stack of the clone's own must be stopped
    and is kept, unused; `erv stack up --own` returns to it.
    """
    from erv.environment import load_environment
    from erv.stack.connect import connect
    from erv.stage import configure_logging

    configure_logging(load_environment())
    for line in connect():
        click.echo(line)
