"""`erv study serve`: asks raters in their browsers."""

from __future__ import annotations

import click


@click.command(name="serve")
@click.argument("name")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5050, show_default=True, help="0: any that is free."
)
@click.option(
    "--allow-host", "hosts", multiple=True, help="A further name of this server, as of a proxy before it."
)
@click.option(
    "--https", is_flag=True, help="Raters reach it by https, through a proxy: cookies are then Secure."
)
def command(name: str, port: int, hosts: tuple[str, ...], https: bool) -> None:
    """Serve the pages of the study NAME on 127.0.0.1, until Ctrl-C.

    Raters come with the addresses that `erv study invite NAME` prints. Every answer is in the database before
    the browser hears so; a killed server goes on where it was. For raters elsewhere, put a proxy with TLS in
    front (docs/studies.md).
    """
    from erv.environment import load_environment
    from erv.stage import configure_logging
    from erv.study.answers.opened import opened
    from erv.study.media import check_media
    from erv.study.pages.app import MOST_BYTES, application
    from erv.study.plan import MEDIA
    from erv.study.wording import counted
    from erv.web.run import LOOPBACK, hosts_of, run
    from erv.web.site import site

    environment = load_environment()
    configure_logging(environment)
    with opened(name, environment.workspace) as (study, _, database):
        check_media(study.folder / MEDIA, study.media)
        app = site(
            application(study, database, https=https), hosts=hosts_of(LOOPBACK, hosts), most_bytes=MOST_BYTES
        )

        def announce(address: str) -> None:
            click.echo(
                f"study {name}: {counted(len(study.assignments), 'place')}, answers in {database.name}"
            )
            click.echo(f"serving {address}; invitations: erv study invite {name} --url {address}")

        run(app, port=port, announce=announce)
