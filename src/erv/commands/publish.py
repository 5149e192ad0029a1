"""`erv publish`: make sure that the candidate bundle is registered and gated."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from erv.errors import ExitCode


@click.command(name="publish")
@click.option(
    "--candidate",
    type=click.Path(path_type=Path),
    default=Path("models/candidate"),
    show_default=True,
    help="The bundle written by the stage register.",
)
@click.option("--require-gates", is_flag=True, help="Exit with 3 unless every gate is passed.")
@click.option("--require-lineage", is_flag=True, help="Exit with 4 unless the version's lineage holds.")
def command(candidate: Path, require_gates: bool, require_lineage: bool) -> None:
    """Publish the candidate to MLflow and decide its gates; a bundle is published only once.

    `erv run` does this at the end. Use this command after a plain `dvc repro` or `dvc exp run`. It first
    pushes the outputs that DVC's remote lacks, and registers nothing if that fails. The requirements are for
    programs: the candidate is published in either case.
    """
    from erv import pipeline
    from erv.comparison.unrun import gone_stages, other_parameters
    from erv.environment import isolate, load_environment
    from erv.errors import RegistryError
    from erv.libraries import require_locked
    from erv.lineage.complete import store_outputs
    from erv.lineage.gate import LineageGate
    from erv.lineage.withdrawal import WithdrawalGate
    from erv.parameters import as_texts, parse, read
    from erv.register.publish import publish
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers
    from erv.stack.own_code import require_own_code
    from erv.stack.reach import require
    from erv.tracking import lock_entries
    from erv.tracking.origin import who

    environment = load_environment()
    require_own_code(environment.workspace)  # a version is stored with it
    check_servers(environment, ("S3", "MLflow"))
    settings = load_settings()
    require_locked(environment.workspace, settings.runtime.python)  # it may evaluate the champion
    isolate(environment)
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
    origin = pipeline.of_bundle(entries)
    now = as_texts(parse(read(environment.workspace)))
    for sentence in gone_stages(origin):
        _say(f"{candidate}: {sentence}; its lineage follows dvc.lock")
    for sentence in other_parameters(origin, now):
        _say(f"{candidate}: {sentence}; its lineage follows dvc.lock. `erv run` runs these stages")
    require("MLflow", environment.mlflow_uri, environment.workspace)
    if needed:
        store_outputs(environment, entries, list(origin), _say)
    lock_entries.reconcile(environment, entries)
    made = entries.get("register")
    lineage = LineageGate(environment, settings)
    _say("registering the candidate, verifying its lineage and deciding its gates")
    result = publish(
        candidate,
        environment,
        settings,
        parent_run_id=lock_entries.containing_run(environment, made) if made else None,
        by=who(environment.workspace),
        lineage=lineage,
        withdrawn=WithdrawalGate(environment, settings),
    )
    for line in result.lines():
        click.echo(line)
    if require_lineage and not (result.lineage or lineage(result.version)).passed:
        click.echo("error: the lineage of the version doesn't hold, see `erv lineage`", err=True)
        sys.exit(ExitCode.LINEAGE)
    if require_gates and not result.passed:
        click.echo("error: not every gate is passed", err=True)
        sys.exit(ExitCode.UNMET)


def _say(line: str) -> None:
    click.echo(line, err=True)
