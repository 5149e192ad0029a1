"""`erv gc`: removes what workers, and the bucket in which they meet coordinators, keep and nobody needs."""

from __future__ import annotations

import os

import click


@click.command(name="gc")
@click.option(
    "--older-than",
    "days",
    default=30,
    show_default=True,
    metavar="DAYS",
    type=click.IntRange(min=2),
    help="What goes: all that was written or fetched longer ago.",
)
@click.option("--dry", is_flag=True, help="Say what would be removed, and remove nothing.")
def command(days: int, dry: bool) -> None:
    """Remove old leftovers of stages that ran on other machines (docs/machines.md).

    In the bucket of DVC's remote: requests, results and commits below remote/. No result of the pipeline is
    there. In the home of this clone's workers, if it has one: commits, DVC's cache and fetched sources; all
    of it is fetched again when it is needed. A stage that waits or runs is never harmed.
    """
    from erv.environment import load_environment
    from erv.errors import StackError
    from erv.remote.checkout import Home
    from erv.remote.old_boards import clear
    from erv.remote.old_files import remove_old
    from erv.remote.work import HOME_VARIABLE, home_of
    from erv.storage.store import open_store

    environment = load_environment()
    folder = home_of(environment)
    if os.environ.get(HOME_VARIABLE) and not folder.is_dir():
        raise StackError(
            f"{HOME_VARIABLE} names {folder}, which is no folder; correct it, or unset it for the home in"
            f" {environment.state / 'worker'}"
        )
    removed = "would remove" if dry else "removed"
    bucket = environment.dvc_bucket
    cleared = clear(open_store(environment), bucket, days, dry=dry)
    click.echo(
        f"s3://{bucket}/remote: {removed} {_count(cleared.stages, 'stage')} and"
        f" {_count(cleared.commits, 'commit')}, {cleared.size / 1e6:,.1f} MB; kept"
        f" {_count(cleared.kept, 'younger one')}"
    )
    if not folder.is_dir():
        return
    freed = remove_old(Home(folder), days, dry=dry)
    if freed.running:
        what = "a stage runs" if freed.running == 1 else f"{freed.running} stages run"
        click.echo(f"{folder}: {what} there, so nothing was removed; run it again afterwards")
        return
    click.echo(
        f"{folder}: {removed} {_count(freed.files, 'file')} and {_count(freed.commits, 'commit')},"
        f" {freed.size / 1e6:,.1f} MB"
    )


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
