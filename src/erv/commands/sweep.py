"""`erv sweep`: many trainings with other parameters, the best of which is proposed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from erv.sweep.options import DIRECTIONS, METRICS, MOST_AT_A_TIME, MOST_TRIALS, SAMPLERS


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
@click.option("--trials", type=click.IntRange(1, MOST_TRIALS), help="In all. Default: as before, or 20.")
@click.option(
    "--at-a-time",
    type=click.IntRange(1, MOST_AT_A_TIME),
    help="Trials side by side. Default: as before, or 1.",
)
@click.option("--stage", default="", help="The stage that decides. Default: that of register.policy.")
@click.option(
    "--metric",
    default="",
    type=click.Choice(["", *METRICS]),
    help="What decides, on validation clips; of grpo accuracy or reward, of sft and train_erv loss.",
)
@click.option("--direction", default="", type=click.Choice(["", *DIRECTIONS]), help="Of the metric.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="For all trials. Repeatable.")
@click.option("--seed", type=click.IntRange(0), help="Of the suggestions. Default: as it began, or 0.")
@click.option("--sampler", type=click.Choice(SAMPLERS), help="Default: as it began, or tpe.")
@click.option(
    "--prune/--no-prune", default=None, help="End trials that fall behind. Default: as it began, or yes."
)
@click.option(
    "--prune-after",
    type=click.IntRange(1, MOST_TRIALS),
    help="Trials to finish before that. Default: as it began, or 4.",
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
    seed: int | None,
    sampler: str | None,
    prune: bool | None,
    prune_after: int | None,
    most_failed: int | None,
    propose: bool | None,
    workers: int,
) -> None:
    """Run the sweep NAME, or go on with it.

    A sweep that was interrupted goes on by its name alone: what its trials vary, and the clone as it was
    then, are kept. Finished trials are not run again. Ctrl-C stops everything.
    """
    from erv.environment import load_environment
    from erv.stack import launch
    from erv.sweep.begin import check
    from erv.sweep.space import read_space
    from erv.sweep.wish import Wish

    wish = Wish(
        name,
        [*over, *(read_space(space) if space is not None else [])],
        trials or 0,
        at_a_time or 0,
        stage,
        metric,
        direction,
        overrides,
        -1 if seed is None else seed,
        sampler or "",
        _word(prune),
        prune_after or 0,
        -1 if most_failed is None else most_failed,
        _word(propose),
        workers,
    )
    check(load_environment(), wish)  # faults are told at once, not by a flow that fails
    launch.run_sweep(dataclasses.asdict(wish))


def _word(switch: bool | None) -> str:
    """As the form has it: empty if nothing was said."""
    return "" if switch is None else "yes" if switch else "no"


@command.command()
@click.argument("name", required=False)
def table(name: str | None) -> None:
    """Show the trials of the sweep NAME; without one, the names of all sweeps of this clone."""
    from erv.environment import load_environment
    from erv.evaluate.compare import format_table
    from erv.sweep.command import command as command_of
    from erv.sweep.folder import begun, sweeps
    from erv.sweep.study import read_study
    from erv.sweep.study import table as rows_of

    environment = load_environment()
    if name is None:
        click.echo("\n".join(sweeps(environment)) or "no sweep was begun in this clone")
        return
    folder, plan = begun(environment, name)
    study = read_study(folder.path, plan)
    click.echo(f"sweep {name}: {plan.metric} of {plan.stage} on validation clips, {plan.direction}d")
    rows = [] if study is None else study.rows(at_work=folder.is_held())
    if study is None or not rows:
        click.echo("no trial has begun")
        return
    best = study.best()
    click.echo(
        format_table([{key: str(value) for key, value in row.items()} for row in rows_of(rows, plan.metric)])
    )
    if best is not None:
        click.echo(f"best: trial {best.number}; to have it here: {command_of(plan, best)}")
