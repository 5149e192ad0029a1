"""`erv register`: make sure that the candidate bundle is registered and gated."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="register")
@click.option(
    "--candidate",
    type=click.Path(path_type=Path),
    default=Path("models/candidate"),
    show_default=True,
    help="The bundle that the stage register has written.",
)
def command(candidate: Path) -> None:
    """Register the candidate in MLflow and decide its gates; the same bundle is registered once.

    `erv run` does this at its end; use it after a plain `dvc repro`.
    """
    from erv.tracking.run import lock_entries as lineage
    from erv.pipeline.dvc import dvc as pipeline
    from erv.environment import isolate, load_environment
    from erv.doctor.preflight import require
    from erv.register.publish import publish
    from erv.settings import load_settings

    environment = load_environment()
    isolate(environment)
    settings = load_settings()
    require("MLflow", environment.mlflow_uri)
    lineage.reconcile(environment, pipeline.read_lock())
    for line in publish(candidate, environment, settings).lines():
        click.echo(line)
