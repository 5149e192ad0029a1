"""`erv publish`: make sure that the candidate bundle is registered and gated."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="publish")
@click.option(
    "--candidate",
    type=click.Path(path_type=Path),
    default=Path("models/candidate"),
    show_default=True,
    help="The bundle written by the stage register.",
)
def command(candidate: Path) -> None:
    """Publish the candidate to MLflow and decide its gates; a bundle is published only once.

    `erv run` does this at the end. Use this command after a plain `dvc repro` or `dvc exp run`. It first
    pushes the outputs that DVC's remote lacks, and registers nothing if that fails.
    """
    from erv import pipeline
    from erv.environment import isolate, load_environment
    from erv.errors import RegistryError
    from erv.lineage.complete import store_outputs
    from erv.register.publish import publish
    from erv.settings import load_settings
    from erv.stack.reach import require
    from erv.tracking import lock_entries

    environment = load_environment()
    isolate(environment)
    settings = load_settings()
    repaired = pipeline.repair_lock()
    if repaired is not None:
        click.echo(repaired, err=True)
    entries = pipeline.read_lock_entries()
    needed = pipeline.select(pipeline.read_stages(), ["register"]) if Path("dvc.yaml").is_file() else ()
    if missing := [stage.name for stage in needed if stage.name not in entries]:
        raise RegistryError(
            f"dvc.lock: no entry of {', '.join(missing[:5])}, which {candidate} comes from, so its lineage"
            " would be lost; run `dvc repro`"
        )
    require("MLflow", environment.mlflow_uri)
    if needed:
        store_outputs(environment, entries, [stage.name for stage in needed], _say)
    lock_entries.reconcile(environment, entries)
    for line in publish(candidate, environment, settings).lines():
        click.echo(line)


def _say(line: str) -> None:
    click.echo(line, err=True)
