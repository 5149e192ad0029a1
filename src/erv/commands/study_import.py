"""`erv study import`: answers that people gave in another program."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="import")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--from", "source", type=click.Choice(["potato", "label-studio"]), required=True, help="Which program."
)
def command(name: str, path: Path, source: str) -> None:
    """Take answers to the study NAME that were given in Potato or Label Studio.

    PATH is Potato's folder of annotations, or Label Studio's export as JSON. All of it is checked before
    anything is kept, and importing again adds only what is new.
    """
    from erv.environment import load_environment
    from erv.study.answers.opened import opened
    from erv.study.exchange import read_project

    with opened(name, load_environment().workspace) as (study, _, database):
        given = read_project(source, study, path)
        new = [
            database.add(
                database.imported(one.who), one.item, one.value, one.shown_seconds, one.key, at_ms=one.at_ms
            )
            for one in given
        ]
    raters = len({one.who for one in given})
    click.echo(f"{len(new)} answers of {raters} raters, {sum(new)} new")
