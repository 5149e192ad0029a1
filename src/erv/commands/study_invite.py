"""`erv study invite`: addresses for raters."""

from __future__ import annotations

import click


@click.command(name="invite")
@click.argument("name")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Invitations.")
@click.option(
    "--days", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, help="They hold."
)
@click.option(
    "--panel",
    type=click.Choice(["prolific", "other"]),
    help="One address for all members of a panel, who bring their ids.",
)
@click.option(
    "--url", default="http://127.0.0.1:5050", show_default=True, help="Where raters open the study."
)
def command(name: str, count: int, days: float, panel: str | None, url: str) -> None:
    """Make invitations to the study NAME and print their addresses, which can't be shown again.

    Each is for one person. With --panel, one address is for all members of a panel, which fills in who comes:
    enter it there, as printed at Prolific; at another panel replace {ID} by its placeholder for the id.
    """
    from erv.environment import load_environment
    from erv.study.answers.links import PLACEHOLDER, link
    from erv.study.answers.opened import opened
    from erv.study.answers.raters import now
    from erv.study.answers.state import state_of
    from erv.study.wording import counted

    with opened(name, load_environment().workspace) as (study, base, database):
        made = database.invite(1 if panel else count, days=days, panel=panel)
        lacking = state_of(base, study).uninvited(now())
    for one in made:
        click.echo(f"{one.id}  {link(url, one.token, panel)}")
    places = counted(len(study.assignments), "place")
    if panel:
        click.echo(f"one address for all {places}; keep it, only its hash is stored", err=True)
    else:
        more = f", {lacking} more {'is' if lacking == 1 else 'are'} needed" if lacking else ""
        click.echo(
            f"{counted(count, 'invitation')}; the study has {places}{more}. Keep the addresses, only hashes"
            " are stored",
            err=True,
        )
    if panel == "other":
        click.echo(
            f"replace {PLACEHOLDER} by the panel's placeholder for its member's id; as printed, the address"
            " lets nobody in",
            err=True,
        )
    if panel and study.panel is None:
        click.echo(
            f"warning: study {name} was prepared without study.panel, so raters get a code of their own each",
            err=True,
        )
