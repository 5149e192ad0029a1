"""`erv study export`: answers as a table, as assessments in MLflow, or a study for other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="export")
@click.argument("name")
@click.option(
    "--to",
    "target",
    type=click.Choice(["table", "mlflow", "potato", "label-studio"]),
    default="table",
    show_default=True,
    help="What to write.",
)
@click.option("--folder", type=click.Path(path_type=Path), help="Of potato and label-studio; a new one.")
def command(name: str, target: str, folder: Path | None) -> None:
    """Write the answers to the study NAME, or the study for another program.

    \b
    table         studies/NAME/answers.parquet and answers.csv, tracked by DVC; a table only grows
    mlflow        assessments by people on the traces of the explanations that they were about
    potato        the study as a project of Potato, and the answers so far in its format
    label-studio  the same for Label Studio
    """  # noqa: D301 (a raw docstring has no mark that click reads)
    from erv.environment import load_environment
    from erv.errors import SettingsError
    from erv.study.answers.opened import opened
    from erv.study.answers.table import SHEET, write_answers
    from erv.study.pinning import pin

    environment = load_environment()
    if (target in ("potato", "label-studio")) != (folder is not None):
        raise SettingsError("--folder goes with --to potato and --to label-studio, and these need it")
    with opened(name, environment.workspace) as (study, _, database):
        log = database.log()
        if target == "table":
            path, rows, new = write_answers(log, study)
            pin([path, study.folder / SHEET])
            click.echo(f"{path}: {rows} rows, {new} new. Next: erv study report {name}")
        elif target == "mlflow":
            from erv.study.exchange.mlflow import export_assessments

            for line in export_assessments(study, log, environment):
                click.echo(line)
        elif folder is not None:
            from erv.study.exchange import write_project

            click.echo(write_project(target, study, log, folder))
