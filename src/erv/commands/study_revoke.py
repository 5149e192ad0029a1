"""`erv study revoke`: withdraws invitations or raters."""

from __future__ import annotations

import click


@click.command(name="revoke")
@click.argument("name")
@click.argument("ids", nargs=-1, required=True, metavar="ID ...")
def command(name: str, ids: tuple[str, ...]) -> None:
    """Withdraw invitations or raters of the study NAME, by their ids in `erv study status`.

    Who comes with one is turned away. Answers stay, and a place that was not finished is free again.
    """
    from erv.environment import load_environment
    from erv.study.answers.opened import opened

    with opened(name, load_environment().workspace) as (_, _, database):
        for one in ids:
            database.revoke(one)
            click.echo(f"withdrew {one}")
