"""`erv lineage`: where something came from, what was made from it, and whether every link still holds."""

from __future__ import annotations

import sys

import click


@click.command(name="lineage")
@click.argument("target")
@click.option("--deep", is_flag=True, help="Read and hash large objects too, not only small ones.")
def command(target: str, deep: bool) -> None:
    """Show the lineage of TARGET and verify it.

    TARGET is a model version (3) or alias (champion), an MLflow run id, the md5 of an output, or a clip
    (mafw/00021). Every object is looked up in the store; exit code 1 if a link is broken.
    """
    from erv import pipeline
    from erv.environment import isolate, load_environment
    from erv.lineage.node import broken, summary
    from erv.lineage.trace import Provenance
    from erv.settings import load_settings

    environment = load_environment()
    isolate(environment)
    repaired = pipeline.repair_lock()
    if repaired is not None:
        click.echo(repaired, err=True)
    node = Provenance(environment, load_settings(), deep).trace(target)
    for line in node.lines():
        click.echo(line)
    click.echo(summary(node))
    if broken(node):
        sys.exit(1)
