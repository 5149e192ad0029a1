"""`erv study import`: answers that people gave in another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from erv.study.exchange.taking import Changed


@click.command(name="import")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--from", "source", type=click.Choice(["potato", "label-studio"]), required=True, help="Which program."
)
@click.option(
    "--changed",
    type=click.Choice(["refuse", "keep", "replace"]),
    default="refuse",
    show_default=True,
    help="Answers that were other ones when they were imported before: leave them out, or take them now.",
)
def command(name: str, path: Path, source: str, changed: Changed) -> None:
    """Take answers to the study NAME that were given in Potato or Label Studio.

    PATH is Potato's folder of annotations, or Label Studio's export as JSON. All of it is taken or nothing,
    and importing again adds only what is new. Answers of this study's own raters, which `erv study export`
    wrote there, are left out, and so are items that somebody has not finished.
    """
    from erv.environment import load_environment
    from erv.study.answers.opened import opened
    from erv.study.exchange import read_project
    from erv.study.exchange.taking import take
    from erv.study.wording import counted

    with opened(name, load_environment().workspace) as (study, base, _):
        found = read_project(source, study, path)
        taken = take(base, study, found.given, changed=changed)
    here = taken.new + taken.known + taken.replaced + taken.kept
    click.echo(f"{counted(here, 'answer')} of {counted(len(taken.people), 'rater')}, {taken.new} new")
    for count, what in (
        (taken.replaced, "changed there: taken instead of the earlier ones"),
        (taken.kept, "changed there: left out, the earlier ones stay"),
        (taken.own, "left out: of this study's own raters, which export wrote there"),
        (taken.withdrawn, "left out: of people who were withdrawn here"),
        (len(found.incomplete), "left out: items that are not finished"),
    ):
        if count:
            click.echo(f"{count} {what}")
