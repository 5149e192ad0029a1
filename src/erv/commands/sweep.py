"""`erv sweep`: many trainings with other parameters, the best of which is proposed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.group(name="sweep")
def command() -> None:
    """Try parameters, compare them on validation clips, propose the best as challenger.

    docs/sweeps.md explains it. Trials run in checkouts of their own; this clone stays as it is.
    """


@command.command()
@click.argument("name")
@click.option(
    "--over",
    multiple=True,
    metavar="NAME=VALUES",
    help="Vary this parameter: grpo.beta=0.01:0.2:log, grpo.max_steps=40:80 or grpo.loss_type=grpo,dapo.",
)
@click.option(
    "--space",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A YAML file with more of them, a line each: `grpo.beta: 0.01:0.2:log`.",
)
@click.option("--trials", type=click.IntRange(1, 10_000), help="In all. Default: as before, or 20.")
@click.option(
    "--at-a-time", type=click.IntRange(1, 64), help="Trials side by side. Default: as before, or 1."
)
@click.option("--stage", default="", help="The stage that decides. Default: that of register.policy.")
@click.option(
    "--metric",
    default="",
    type=click.Choice(["", "accuracy", "reward", "loss"]),
    help="What decides, on validation clips; of grpo accuracy or reward, of sft and train_erv loss.",
)
@click.option(
    "--direction", default="", type=click.Choice(["", "maximize", "minimize"]), help="Of the metric."
)
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="For all trials. Repeatable.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the suggestions.")
@click.option("--sampler", default="tpe", show_default=True, type=click.Choice(["tpe", "random"]))
@click.option("--prune/--no-prune", default=True, show_default=True, help="End trials that fall behind.")
@click.option(
    "--prune-after",
    default=4,
    show_default=True,
    type=click.IntRange(1),
    help="Trials to finish before that.",
)
@click.option("--most-failed", type=click.IntRange(0), help="Trials that may fail. Default: as before, or 3.")
@click.option(
    "--propose/--no-propose", default=None, help="Register the best, with gates. Default: as before, or yes."
)
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 32), help="Stages in parallel."
)
def run(
    name: str,
    over: Sequence[str],
    space: Path | None,
    trials: int | None,
    at_a_time: int | None,
    stage: str,
    metric: str,
    direction: str,
    overrides: Sequence[str],
    seed: int,
    sampler: str,
    prune: bool,
    prune_after: int,
    most_failed: int | None,
    propose: bool | None,
    workers: int,
) -> None:
    """Run the sweep NAME, or go on with it.

    A sweep that was interrupted goes on by its name alone: what its trials vary, and the clone as it was
    then, are kept. Finished trials are not run again. Ctrl-C stops everything.
    """
    from erv.stack import launch
    from erv.sweep.space import parse_space, read_space

    dimensions = [*over, *(read_space(space) if space is not None else [])]
    if dimensions:
        parse_space(dimensions)
    launch.run_sweep(
        {
            "name": name,
            "over": dimensions,
            "trials": trials or 0,
            "at_a_time": at_a_time or 0,
            "stage": stage,
            "metric": metric,
            "direction": direction,
            "overrides": list(overrides),
            "seed": seed,
            "sampler": sampler,
            "prune": prune,
            "prune_after": prune_after,
            "most_failed": -1 if most_failed is None else most_failed,
            "propose": "" if propose is None else "yes" if propose else "no",
            "workers": workers,
        }
    )


@command.command()
@click.argument("name", required=False)
def table(name: str | None) -> None:
    """Show the trials of the sweep NAME; without one, the names of all sweeps of this clone."""
    from erv.environment import load_environment
    from erv.evaluate.compare import format_table
    from erv.sweep.folder import begun, sweeps
    from erv.sweep.study import Study
    from erv.sweep.study import table as rows_of

    environment = load_environment()
    if name is None:
        click.echo("\n".join(sweeps(environment)) or "no sweep was begun in this clone")
        return
    folder, plan = begun(environment, name)
    study = Study(folder.path, plan)
    best = study.best()
    click.echo(f"sweep {name}: {plan.metric} of {plan.stage} on validation clips, {plan.direction}d")
    rows = study.rows()
    if not rows:
        click.echo("no trial has begun")
        return
    click.echo(
        format_table([{key: str(value) for key, value in row.items()} for row in rows_of(rows, plan.metric)])
    )
    if best is not None:
        sets = " ".join(f"--set {override}" for override in (*plan.overrides, *best.overrides))
        click.echo(f"best: trial {best.number}; `erv run {plan.stage} {sets}` has it here")
