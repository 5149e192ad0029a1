"""`erv predict`: what a published version says about the clips of a folder or a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

_SHOWN = 20


@click.command(name="predict")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The parquet file to write, a row per clip.",
)
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="The version that answers: models:/NAME/1, NAME@ALIAS, 1, champion.",
)
def command(source: Path, output: Path, model: str) -> None:
    """Ask a version about the clips of SOURCE, a folder of videos or a manifest (data/manifest/NAME.parquet).

    The version answers with its own code and weights, whose hashes are checked first. A clip that can't be
    read or answered has a sentence in the column error. A killed command goes on where it stopped; the file
    names the version in its metadata. Only a file that `erv predict` wrote is replaced.
    """
    if source.resolve() == output.resolve():
        raise click.UsageError(f"--output {output} is the manifest that is read; name another file")
    from erv.commands.version import resolved_version
    from erv.environment import isolate, load_environment
    from erv.files import sha256_of_text
    from erv.predict.listing import list_clips, shown
    from erv.predict.predict import predict, require_own_file
    from erv.register.fetched import fetch_version
    from erv.settings import load_settings

    require_own_file(output)
    environment = load_environment()
    isolate(environment)
    found = resolved_version(model, environment)
    roots = load_settings().machine.allowed_roots if Path("params.yaml").is_file() else ()
    listing = list_clips(source, roots)
    version = fetch_version(found, environment)
    kept = environment.state / "predictions" / sha256_of_text(shown(output.resolve()))[:16]
    done = predict(version, listing, output, kept)
    if listing.left_out:
        click.echo(f"left out {listing.left_out} files that are no videos by the endings of their names")
    if listing.skipped:
        click.echo(f"not looked into: {named(listing.skipped)}")
    again = f", {done.kept} of them kept from an earlier run" if done.kept else ""
    clips = "1 clip" if done.clips == 1 else f"{done.clips} clips"
    click.echo(f"{version.title} was asked about {clips}{again}")
    if done.failed:
        click.echo(f"{done.failed} could not be answered; the column error says why")
    click.echo(f"wrote {shown(output)}")


def named(skipped: Sequence[str]) -> str:
    """What was skipped, with its reasons; only so many that a terminal shows them."""
    more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
    return f"{len(skipped)} of the folder ({'; '.join(skipped[:_SHOWN])}{more})"
