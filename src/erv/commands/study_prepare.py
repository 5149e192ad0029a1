"""`erv study prepare`: a study from evaluated policies."""

from __future__ import annotations

import click


@click.command(name="prepare")
@click.argument("name")
def command(name: str) -> None:
    """Make the study NAME from the section `study` of params.yaml and the predictions in eval/.

    Writes studies/NAME: the plan (study.json), the clips as raters' browsers play them (media), and which
    policy wrote what (key.json, for your eyes only), each pinned by DVC. The same inputs give the same bytes.
    A study that is there already is never changed.
    """
    from erv.commands.shown import progress_shown
    from erv.environment import load_environment
    from erv.settings import load_settings
    from erv.stage import configure_logging
    from erv.study.prepare import prepare

    configure_logging(load_environment())
    with progress_shown():
        prepared = prepare(name, load_settings())
    for line in prepared.said:
        click.echo(line)
    state = "wrote" if prepared.new else "unchanged:"
    click.echo(f"{state} {prepared.folder}, plan {prepared.sha256}")
    click.echo(f"Commit {prepared.folder}/*.dvc; `dvc push` keeps the study. Next: erv study invite {name}")
