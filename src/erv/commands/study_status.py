"""`erv study status`: how far a study is."""

from __future__ import annotations

import click


@click.command(name="status")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, as_json: bool) -> None:
    """Say who was invited to the study NAME, who has answered how much, and which places are free.

    Raters have the pseudonyms that they are shown as their numbers. Beside them is who they are to the panel,
    or to the program that their answers came from, and without a panel the code that they were shown at the
    end.
    """
    import json
    from dataclasses import asdict

    from erv.environment import load_environment
    from erv.study.answers.opened import opened
    from erv.study.answers.state import state_of
    from erv.study.wording import counted

    with opened(name, load_environment().workspace) as (study, base, database):
        state = state_of(base, study)
        where = database.name
    if as_json:
        click.echo(json.dumps(asdict(state), indent=1))
        return
    finished = sum(rater.finished for rater in state.raters)
    counts = state.answers.values()
    click.echo(f"plan {study.sha256[:12]}, answers in {where}")
    click.echo(
        f"{finished} of {counted(len(study.assignments), 'place')} finished, {len(state.free)} free;"
        f" {counted(sum(counts), 'answer')} to {counted(len(counts), 'main item')},"
        f" {min(counts, default=0)} to {max(counts, default=0)} each"
    )
    for rater in state.raters:
        click.echo(
            f"  {rater.id}  {rater.slot or '-':8} {rater.answered:3} of {rater.asked:3}  {rater.word}"
            f"{f'  ({rater.invitation})' if rater.invitation else ''}"
            f"{f'  {rater.participant}' if rater.participant else ''}"
            f"{f'  code {rater.code}' if rater.code and study.panel is None else ''}"
        )
    for invited in state.invitations:
        if not invited.raters or invited.panel or invited.withdrawn:
            word = "withdrawn" if invited.withdrawn else f"{invited.raters} came"
            click.echo(f"  {invited.id}  {invited.panel or 'one person'}  {word}")
    if state.elsewhere:
        click.echo(
            f"warning: {state.elsewhere} answers in this database are to other plans called {name}", err=True
        )
