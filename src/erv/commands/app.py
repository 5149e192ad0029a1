"""`erv app`: a page on which versions explain clips; and what people said there, as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from erv.app.versions import Choice, Versions
    from erv.environment import Environment

KEY_VARIABLE = "ERV_APP_KEY"
HOSTS_VARIABLE = "ERV_APP_HOSTS"


@click.group(name="app", invoke_without_command=True)
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="The version that is asked first: models:/NAME/1, NAME@ALIAS, 1, champion.",
)
@click.option(
    "--bundle",
    "bundles",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="A bundle in a folder instead, such as models/candidate; needs no registry. Repeat it to compare.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8010, show_default=True, help="0: any free one."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--max-mb", type=click.IntRange(1), default=64, show_default=True, help="Largest clip, in MiB.")
@click.option(
    "--seconds", type=click.FloatRange(1), default=300.0, show_default=True,
    help="Within which a clip must be answered.",
)  # fmt: skip
@click.pass_context
def command(
    context: click.Context, model: str, bundles: tuple[Path, ...], host: str, port: int, device: str,
    max_mb: int, seconds: float,
) -> None:  # fmt: skip
    """Open a page where a version explains clips as it writes: uploaded, picked, recorded or live.

    Clips can be picked from ERV_SERVE_ROOT. ERV_APP_KEY has the key that the page asks for, or several with
    commas between them; without one, only this machine is answered. ERV_APP_HOSTS names further names of this
    machine. It serves until Ctrl-C.
    """
    if context.invoked_subcommand is not None:
        return
    import os
    import threading
    from functools import partial

    from erv.answering.clips import ROOT_VARIABLE, served_clips
    from erv.answering.process import Answerer
    from erv.app.app import FEATURES, App
    from erv.app.feedback import Feedback
    from erv.app.traces import send
    from erv.app.versions import Versions
    from erv.environment import isolate, load_environment
    from erv.register.opened import Opened
    from erv.web.keys import further_hosts, take_keys
    from erv.web.run import hosts_of, require_key, run
    from erv.web.site import site

    keys = take_keys(KEY_VARIABLE)
    require_key(host, keys, KEY_VARIABLE)
    hosts = hosts_of(host, further_hosts(HOSTS_VARIABLE))
    environment = load_environment()
    isolate(environment)
    clips = served_clips()
    _refuse_twice(bundles)

    def start(opened: Opened) -> Answerer:
        log = environment.state / "app" / f"{opened.digest[:16]}.log"
        return Answerer(opened.folder, root=os.environ.get(ROOT_VARIABLE), device=device, log=log)

    choices = partial(_bundles, bundles) if bundles else partial(_registered, model, environment)
    versions = Versions(choices, start)
    listed = versions.choices()
    first = listed[0]
    click.echo(f"loading {first.title} ...", err=True)
    shown = _and([choice.title for choice in (listed if bundles else listed[:1])])
    explain = "explain" if len(bundles) > 1 else "explains"
    told = partial(send, environment) if environment.mlflow_uri else None
    feedback = Feedback(_folder(environment), told)
    feedback.keep_telling()
    app = App(versions, feedback, clips, seconds=seconds, most_mb=max_mb)
    guarded = site(
        app.starlette(),
        hosts=hosts,
        most_bytes=max_mb << 20,
        key=keys or None,
        realm="erv app",
        remedy=f"it is in {KEY_VARIABLE} of whoever runs this server",
        allow=FEATURES,
    )
    threading.Thread(target=_load, args=(versions, first.id), name="load", daemon=True).start()
    try:
        run(
            guarded,
            host=host,
            port=port,
            announce=lambda address: click.echo(f"{shown} {explain} clips at {address}"),
        )
    finally:
        versions.close()


def _refuse_twice(bundles: Sequence[Path]) -> None:
    from erv.errors import SettingsError

    folders = [bundle.resolve() for bundle in bundles]
    for bundle, folder in zip(bundles, folders, strict=True):
        if folders.count(folder) > 1:
            raise SettingsError(
                f"--bundle {bundle} is named twice, and would be compared with itself; name another, or one"
                " bundle alone"
            )


def _and(titles: Sequence[str]) -> str:
    return " and ".join([", ".join(titles[:-1]), titles[-1]]) if len(titles) > 1 else titles[0]


def _load(versions: Versions, version: str) -> None:
    """Loads the version that is asked first, so that nobody waits for that."""
    from erv.errors import ErvError

    try:
        versions.get(version)
    except ErvError as error:  # whoever asks it is told again
        click.echo(f"can't be loaded yet: {error}", err=True)


@command.command(name="export")
@click.argument("output", type=click.Path(path_type=Path))
def export_command(output: Path) -> None:
    """Write what people approved and corrected to the folder OUTPUT, as a reasoning set (EMER.csv and clips).

    Only clips that were kept are in it. docs/data.md says how such a set is pinned and used.
    """
    from erv.app.export import export
    from erv.environment import load_environment

    done = export(_folder(load_environment()), output)
    if done.without_clip:
        click.echo(f"skipped {_answers(done.without_clip)} whose clip was not kept")
    if done.without_text:
        click.echo(f"skipped {_answers(done.without_text)} that nobody approved or corrected")
    clips = "1 clip with its explanation" if done.rows == 1 else f"{done.rows} clips with their explanations"
    click.echo(f"wrote {clips} to {output} (git ignores it)")


def _answers(count: int) -> str:
    return f"{count} answer{'' if count == 1 else 's'}"


def _folder(environment: Environment) -> Path:
    return environment.state / "app"


def _bundles(folders: Sequence[Path]) -> list[Choice]:
    from functools import partial

    from erv.app.titles import titles_of
    from erv.app.versions import Choice
    from erv.register.opened import opened_folder

    return [
        Choice(str(number), title, partial(opened_folder, folder))
        for number, (folder, title) in enumerate(zip(folders, titles_of(folders), strict=True), 1)
    ]


def _registered(target: str, environment: Environment) -> list[Choice]:
    """The versions of a model, the asked one first, then the newest ones."""
    from functools import partial

    from erv.app.versions import Choice
    from erv.commands.version import resolved_version
    from erv.register.explained import explained
    from erv.register.fetched import fetch_version
    from erv.register.opened import Opened, opened_version
    from erv.register.record import RECORD_TAG
    from erv.register.versions import versions
    from erv.tracking.lock_entries import client_of
    from erv.tracking.patience import repeated

    asked = resolved_version(target, environment)
    with explained(environment):
        client = client_of(environment)
        found = [one for one in versions(client, asked.name) if RECORD_TAG in one.tags]
        aliases = repeated(lambda: client.get_registered_model(asked.name)).aliases

    def opened(number: str) -> Opened:
        return opened_version(
            fetch_version(resolved_version(f"{asked.name}/{number}", environment), environment)
        )

    choices = []
    for one in reversed(found):
        named = sorted(alias for alias, number in aliases.items() if str(number) == str(one.version))
        more = f" ({', '.join(named)})" if named else ""
        number = str(one.version)
        choices.append(Choice(number, f"{asked.name} version {number}{more}", partial(opened, number)))
    return sorted(choices, key=lambda choice: choice.id != str(asked.version))
