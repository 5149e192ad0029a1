"""`erv evaluate`: any model against the present test sets."""

from __future__ import annotations

import click


@click.command(name="evaluate")
@click.argument("model", default="champion")
def command(model: str) -> None:
    """Measure MODEL on the present test sets: WAR, UAR, EEA, EPC, FCR with intervals.

    MODEL is a version (models:/NAME/1, NAME@ALIAS, 1, champion) or a folder on this machine: one that `erv
    export` wrote, a bundle such as models/candidate, or any policy of `policy.family` in the format of the
    Hub. It is evaluated as the candidate is, with the same clips, judges and decoding. The figures go to
    MLflow as a run of their own; dvc.lock, the registry and its gates stay as they are. Ctrl-C stops it, and
    the same command goes on where it stopped.
    """
    from erv.commands.shown import progress_shown
    from erv.environment import isolate, load_environment
    from erv.libraries import require_locked
    from erv.lineage.resolved import named_model
    from erv.register.evaluation import evaluate
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers
    from erv.stack.own_code import require_own_code

    environment = load_environment()
    require_own_code(environment.workspace)
    check_servers(environment, ("S3", "MLflow"))
    settings = load_settings(environment.workspace / "params.yaml")
    require_locked(environment.workspace, settings.runtime.python)
    isolate(environment)
    with progress_shown():
        found = evaluate(named_model(model, environment), environment, settings)
    for line in found.lines():
        click.echo(line)
