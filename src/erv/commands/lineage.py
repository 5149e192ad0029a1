"""`erv lineage`: where something came from, what came of it, and whether every link still holds."""

from __future__ import annotations

import sys

import click


@click.command(name="lineage")
@click.argument("target")
@click.option("--deep", is_flag=True, help="Read and hash large objects too, not only small ones.")
def command(target: str, deep: bool) -> None:
    """Show the lineage of TARGET and verify it.

    TARGET is a model version (3) or alias (champion), an MLflow run id, the md5 of an output, or a clip
    (mafw/00019). Every object is looked up in the store; exit code 1 if a link is broken.
    """
    from erv.environment import isolate, load_environment
    from erv.provenance import Provenance, broken
    from erv.settings import load_settings

    environment = load_environment()
    isolate(environment)
    node = Provenance(environment, load_settings(), deep).trace(target)
    for line in node.lines():
        click.echo(line)
    checks = [check for part in node.walk() for check in part.checks]
    bad = broken(node)
    unknown = sum(check.ok is None for check in checks)
    click.echo(f"{len(checks)} links checked, {len(bad)} broken, {unknown} not verifiable from here")
    if bad:
        sys.exit(1)
