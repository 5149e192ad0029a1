"""`erv study extend`: more raters for a study that has begun."""

from __future__ import annotations

import click


@click.command(name="extend")
@click.argument("name")
@click.option(
    "--without", multiple=True, metavar="RATER", help="Replace this rater's answers; may be repeated."
)
def command(name: str, without: tuple[str, ...]) -> None:
    """Add places to the study NAME for what its main items lack of raters.

    Who is withdrawn before the end leaves a place for the next rater, without this command. It is for raters
    who finished, but whose answers are not to count (--without). Writes studies/NAME/extension-N.json; the
    plan and its hash stay. A running `erv study serve` gives the new places out when no other is free.
    """
    from erv.environment import load_environment
    from erv.errors import DataError
    from erv.study.answers.opened import opened
    from erv.study.answers.state import state_of
    from erv.study.extend import extend, lacking, standing
    from erv.study.plan import read_key, read_study
    from erv.study.wording import counted

    with opened(name, load_environment().workspace) as (study, base, database):
        state, log = state_of(base, study), database.log()
    known = [rater.id for rater in state.raters]
    if unknown := [rater for rater in without if rater not in known]:
        raise DataError(f"study {name}: has no rater {unknown[0]!r}; `erv study status {name}` lists them")
    missing = lacking(study, *standing(study, log, state, without))
    path = extend(study, read_key(study), missing)
    added = counted(len(read_study(study.folder).assignments) - len(study.assignments), "more place")
    click.echo(
        f"wrote {path}: {added} for {counted(len(missing), 'item')}; commit {path}.dvc"
        f". A running `erv study serve {name}` on this machine gives them out; next: erv study invite {name}"
    )
