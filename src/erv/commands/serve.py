"""`erv serve`: an HTTP API for programs."""

from __future__ import annotations

import os
from pathlib import Path

import click

HOSTS_VARIABLE = "ERV_SERVE_HOSTS"


@click.command(name="serve")
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="The version that answers: models:/NAME/1, NAME@ALIAS, 1, champion. An alias is followed.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A bundle in a folder instead, such as models/candidate; needs no registry.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one."
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True,
    help="Of the policy's weights.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Most requests answered together."
)
@click.option(
    "--queue", type=click.IntRange(1), default=32, show_default=True, help="Most requests that wait."
)
@click.option(
    "--max-mb", type=click.IntRange(1), default=64, show_default=True, help="Largest request, in MiB."
)
@click.option(
    "--seconds", type=click.FloatRange(1), default=300.0, show_default=True,
    help="Within which a request must be answered.",
)  # fmt: skip
@click.option(
    "--per-minute", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True,
    help="Questions (POST) of a client in a minute; a client is a key, or without keys an address.",
)  # fmt: skip
@click.option(
    "--burst", type=click.IntRange(1), default=100, show_default=True, help="Questions of a client at once."
)
@click.option(
    "--look-every", type=click.FloatRange(0), default=30.0, show_default=True,
    help="Seconds between two looks whether an alias has moved; 0: never.",
)  # fmt: skip
def command(
    model: str, bundle: Path | None, host: str, port: int, device: str, dtype: str, batch: int, queue: int,
    max_mb: int, seconds: float, per_minute: float, burst: int, look_every: float,
) -> None:  # fmt: skip
    """Answer programs over HTTP what a version says about clips: POST /explain and /v1/chat/completions.

    ERV_SERVE_KEY has the key that clients bring, or several with commas between them; without one, only this
    machine is answered. ERV_SERVE_ROOT names the folder whose clips may be named, ERV_SERVE_HOSTS further
    names of this machine. It serves until Ctrl-C.
    """
    from functools import partial

    from erv.answering.clips import ROOT_VARIABLE, served_clips
    from erv.answering.process import Answerer
    from erv.commands.version import resolved_version
    from erv.environment import isolate, load_environment
    from erv.serve.app import KEY_VARIABLE, application, gated
    from erv.serve.engine import Engine
    from erv.serve.rates import Buckets
    from erv.serve.versions import FolderSource, RegistrySource, Source, Version
    from erv.web.keys import further_hosts, take_keys
    from erv.web.run import hosts_of, require_key, run

    keys = take_keys(KEY_VARIABLE)
    require_key(host, keys, KEY_VARIABLE)
    hosts = hosts_of(host, further_hosts(HOSTS_VARIABLE))
    environment = load_environment()
    isolate(environment)
    served_clips()
    source: Source
    if bundle is not None:
        source = FolderSource(bundle)
        click.echo(f"loading {bundle} ...", err=True)
    else:
        source = RegistrySource(partial(resolved_version, model, environment), environment)
        click.echo(f"loading {source.newest().partition(' ')[0]} ...", err=True)

    def start(version: Version) -> Answerer:
        return Answerer(
            version.bundle,
            root=os.environ.get(ROOT_VARIABLE),
            device=device,
            dtype=dtype,
            batch=batch,
            queue=queue,
            log=environment.state / "serve" / f"{version.id.replace('/', '-')}.log",
        )

    engine = Engine(source, start, queue=queue, every=look_every)
    try:
        app = application(engine, batch=batch, seconds=seconds, buckets=Buckets(per_minute, burst))
        guarded = gated(app, hosts=hosts, most_bytes=max_mb << 20, keys=keys)
        run(
            guarded,
            host=host,
            port=port,
            announce=lambda address: click.echo(f"{engine.version.id} answers at {address}"),
        )
    finally:
        engine.close()
