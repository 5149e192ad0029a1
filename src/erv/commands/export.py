"""`erv export`: a published version as a folder for others."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="The version to export: models:/NAME/1, NAME@ALIAS, 1, champion.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["hf"]),
    default="hf",
    show_default=True,
    help="hf: a from_pretrained folder with a card, as the Hugging Face Hub takes it.",
)
def command(folder: Path, model: str, form: str) -> None:
    """Write a version as a new FOLDER that others can load without our servers.

    Its hashes are checked first. `erv import` registers such a folder.
    """
    from erv.commands.version import resolved_version
    from erv.environment import isolate, load_environment
    from erv.export.export import export
    from erv.register.against_champion import kept_verdicts
    from erv.register.fetched import fetch_version

    environment = load_environment()
    isolate(environment)
    found = resolved_version(model, environment)
    version = fetch_version(found, environment)
    export(version, folder, kept_verdicts(found))
    click.echo(f"wrote {version.title} to {folder}")
