"""`erv run`: the train flow on the servers of this workspace, what it would do, deployment and worker."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click


@click.command(name="run")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--force", is_flag=True, help="Run stages even if nothing changed.")
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 32), help="Stages to run in parallel."
)
@click.option("--dry", is_flag=True, help="Say what would run, why, for how long and at what price.")
@click.option("--json", "as_json", is_flag=True, help="With --dry: as JSON.")
@click.option("--deploy", is_flag=True, help="Register the deployment train/local instead of running.")
@click.option("--worker", is_flag=True, help="Serve deployments in the foreground instead of running.")
def command(
    targets: tuple[str, ...],
    force: bool,
    workers: int,
    dry: bool,
    as_json: bool,
    deploy: bool,
    worker: bool,
) -> None:
    """Run the pipeline: every stage, or TARGETs (`grpo`, `grpo@erv`) and what they need.

    At the end it prints what each stage did, the metrics, the registered version and where to look. Ctrl-C
    stops everything; finished work is kept. With --dry nothing runs and nothing is changed.
    """
    if deploy and worker:
        raise click.UsageError("--deploy and --worker can't be combined; give one of them")
    if (deploy or worker) and (targets or force or dry):
        raise click.UsageError(
            "--deploy and --worker take no targets, --force or --dry; give targets to"
            " `prefect deployment run`"
        )
    if as_json and not dry:
        raise click.UsageError("--json goes with --dry")
    if dry:
        _foresee(targets, force, as_json)
        return
    from erv.stack import launch

    if deploy:
        launch.deploy()
    elif worker:
        launch.serve()
    else:
        launch.run_flow(targets, force=force, workers=workers)


def _foresee(targets: Sequence[str], force: bool, as_json: bool) -> None:
    from erv.doctor.foresight import foresee
    from erv.doctor.foresight_text import lines
    from erv.environment import load_environment
    from erv.settings import load_settings

    environment = load_environment()
    settings = load_settings(environment.workspace / "params.yaml")
    found = foresee(environment, settings, targets, force=force)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2, ensure_ascii=False))
        return
    for line in lines(found):
        click.echo(line)
