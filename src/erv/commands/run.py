"""`erv run`: the train flow on the servers of this workspace, its deployment, its worker."""

from __future__ import annotations

import click


@click.command(name="run")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--only", metavar="STAGE", help="Run this stage alone; what it reads must be up to date.")
@click.option("--force", is_flag=True, help="Run the TARGETs, or else all stages, even if nothing changed.")
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 32), help="Stages to run in parallel."
)
@click.option("--deploy", is_flag=True, help="Register the deployment train/local instead of running.")
@click.option("--worker", is_flag=True, help="Serve deployments in the foreground instead of running.")
def command(
    targets: tuple[str, ...], only: str | None, force: bool, workers: int, deploy: bool, worker: bool
) -> None:
    """Run the pipeline: every stage, or TARGETs (`grpo`, `grpo@erv`) and what they need.

    At the end it prints what each stage did, the metrics, the registered version and where to look. Ctrl-C
    stops everything; finished work is kept. --force leaves what TARGETs need to DVC.
    """
    if deploy and worker:
        raise click.UsageError("--deploy and --worker can't be combined; give one of them")
    if only and targets:
        raise click.UsageError("--only names the one stage to run, so it takes no targets")
    if (deploy or worker) and (targets or force or only):
        raise click.UsageError("--deploy and --worker take no targets; give them to `prefect deployment run`")
    from erv.stack import launch

    if deploy:
        launch.deploy()
    elif worker:
        launch.serve()
    else:
        launch.run_flow(targets, force=force, workers=workers, only=only)
