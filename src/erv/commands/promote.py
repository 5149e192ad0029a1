"""`erv promote`: make a version champion by hand."""

from __future__ import annotations

import click


@click.command(name="promote")
@click.argument("version", default="challenger")
def command(version: str) -> None:
    """Make VERSION (a number or an alias, by default the challenger) the champion, whatever its gates say."""
    from erv.environment import isolate, load_environment
    from erv.register.aliases import promote
    from erv.settings import load_settings

    environment = load_environment()
    isolate(environment)
    click.echo(promote(version, environment, load_settings()))
