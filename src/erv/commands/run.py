"""`erv run`: the train flow on the servers of this workspace, what it would do, deployment and worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource


@click.command(name="run")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--only", metavar="STAGE", help="Run this stage alone; what it reads must be up to date.")
@click.option("--force", is_flag=True, help="Run the TARGETs, or else all stages, even if nothing changed.")
@click.option(
    "--workers",
    default=2,
    show_default=True,
    type=click.IntRange(1, 32),
    help="Stages to run in parallel; with --deploy, in runs of the train flow and retrain/scheduled.",
)
@click.option("--profile", metavar="NAME", help="Write this profile into params.yaml first; it stays there.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="NAME=VALUE",
    help="Write this parameter into params.yaml first, such as grpo.beta=0.1; it stays there. Repeatable.",
)
@click.option(
    "--placement",
    multiple=True,
    metavar="STAGE=POOL",
    help="Have this stage or step run on the workers of a work pool, such as grpo=gpu; counts for this run,"
    " before machine.placement. Repeatable.",
)
@click.option("--dry", is_flag=True, help="Say what would run, why, for how long and at what price.")
@click.option("--json", "as_json", is_flag=True, help="With --dry: as JSON.")
@click.option("--require-gates", is_flag=True, help="Exit with 3 unless every gate is passed.")
@click.option("--require-lineage", is_flag=True, help="Exit with 4 unless the version's lineage holds.")
@click.option(
    "--deploy", is_flag=True, help="Register the deployments, and who is told of news, instead of running."
)
@click.option("--replace", is_flag=True, help="With --deploy: take over what another clone has deployed.")
@click.option(
    "--cancel-waiting",
    is_flag=True,
    help="With --deploy: cancel runs that wait for the workers of other clones.",
)
@click.option(
    "--worker", is_flag=True, help="Serve this clone's deployments in the foreground instead of running."
)
@click.option(
    "--pool", metavar="POOL", help="With --worker: serve a work pool that other clones send stages to."
)
@click.option(
    "--job-template",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --pool: run each stage as a Kubernetes job, made from this base job template of Prefect.",
)
def command(
    targets: tuple[str, ...],
    only: str | None,
    force: bool,
    workers: int,
    profile: str | None,
    overrides: tuple[str, ...],
    placement: tuple[str, ...],
    dry: bool,
    as_json: bool,
    require_gates: bool,
    require_lineage: bool,
    deploy: bool,
    replace: bool,
    cancel_waiting: bool,
    worker: bool,
    pool: str | None,
    job_template: Path | None,
) -> None:
    """Run the pipeline: every stage, or TARGETs (`grpo`, `grpo@erv`) and what they need.

    At the end it prints what each stage did, the metrics, the registered version and where to look. Ctrl-C
    stops everything; finished work is kept. --force leaves what TARGETs need to DVC. With --dry nothing runs
    and nothing is changed.

    --profile and --set change params.yaml, as `dvc exp run -S` does, so that dvc.lock and params.yaml agree
    afterwards and `git diff` shows what was set. `git checkout params.yaml dvc.lock`, then `dvc checkout`,
    goes back. Parameters with faults are refused before anything is changed.
    """
    if deploy and worker:
        raise click.UsageError("--deploy and --worker can't be combined; give one of them")
    if only and targets:
        raise click.UsageError("--only names the one stage to run, so it takes no targets")
    requirements = require_gates or require_lineage
    changed = bool(profile or overrides)
    if (deploy or worker) and (targets or force or only or dry or requirements or changed or placement):
        raise click.UsageError(
            "--deploy takes --workers, --replace and --cancel-waiting, --worker no other option, and neither"
            " takes targets; give targets to `prefect deployment run`"
        )
    source = click.get_current_context().get_parameter_source("workers")
    given = source not in (None, ParameterSource.DEFAULT)
    if worker and given:
        raise click.UsageError("--workers goes with a run or with --deploy, which --worker then serves")
    if pool is not None and not worker:
        raise click.UsageError("--pool goes with --worker; stages are sent there by machine.placement")
    if job_template is not None and pool is None:
        raise click.UsageError("--job-template goes with --worker --pool POOL, whose stages it makes jobs of")
    if replace and not deploy:
        raise click.UsageError("--replace goes with --deploy")
    if cancel_waiting and not deploy:
        raise click.UsageError("--cancel-waiting goes with --deploy")
    if dry and requirements:
        raise click.UsageError("--dry goes with TARGETs, --only, --force and --placement alone")
    if dry and changed:
        raise click.UsageError(
            "--dry changes nothing, so it takes neither --set nor --profile; `erv params reruns NAME` says"
            " which stages a parameter runs again"
        )
    if as_json and not dry:
        raise click.UsageError("--json goes with --dry")
    if dry:
        _foresee(targets, force, only, placement, as_json)
        return
    from erv.remote.old_files import keep_days
    from erv.remote.placement import read_placement
    from erv.stack import launch

    # Before anything starts.
    read_placement(placement)
    keep_days()
    if deploy:
        launch.deploy(workers=workers if given else None, replace=replace, cancel_waiting=cancel_waiting)
    elif pool is not None:
        launch.serve_shared(pool, job_template)
    elif worker:
        launch.serve()
    else:
        launch.run_flow(
            targets,
            force=force,
            workers=workers,
            only=only,
            profile=profile,
            overrides=overrides,
            placement=placement,
            require_gates=require_gates,
            require_lineage=require_lineage,
        )


def _foresee(
    targets: Sequence[str], force: bool, only: str | None, placement: Sequence[str], as_json: bool
) -> None:
    from erv.doctor.foresight import foresee
    from erv.doctor.foresight_text import lines
    from erv.environment import load_environment
    from erv.remote.placement import read_placement, with_placement
    from erv.settings import load_settings

    environment = load_environment()
    settings = load_settings(environment.workspace / "params.yaml")
    settings = with_placement(settings, read_placement(placement))
    found = foresee(environment, settings, targets, force=force, only=only)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2, ensure_ascii=False))
        return
    for line in lines(found):
        click.echo(line)
