"""`erv champions`: every version that was champion, and how it became so."""

from __future__ import annotations

import click

_COLUMNS = 100


@click.command(name="champions")
def command() -> None:
    """List the champions, first to last: since when, by whom, how, why, and which gates were overridden."""
    from erv.environment import isolate, load_environment
    from erv.register.explained import explained
    from erv.register.reign import reigns
    from erv.settings import load_settings
    from erv.tracking.lock_entries import client_of

    environment = load_environment()
    isolate(environment)
    name = load_settings().register_.model_name
    with explained(environment):
        found = reigns(client_of(environment), name)
    if not found:
        click.echo(f"{name} never had a champion")
    for reign in found:
        click.echo(reign.text(_COLUMNS))
