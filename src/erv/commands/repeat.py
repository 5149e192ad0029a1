"""`erv repeat`: the pipeline with several seeds and folds, and their figures in one table."""

from __future__ import annotations

import click


class Numbers(click.ParamType[tuple[int, ...]]):
    """`101,102` or `101-110`."""

    name = "numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers in their order, each once."""
        from erv.repeat.plan import numbers

        if isinstance(value, tuple):
            return value
        try:
            return numbers(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group(name="repeat")
def command() -> None:
    """Run the pipeline with several seeds and folds, and show means and spread.

    Each run is an experiment of DVC (`dvc exp show`, `dvc queue status`). The corpus stays the same; for a
    corpus per seed see benchmarks/claim.py.
    """


@command.command()
@click.option("--seeds", type=Numbers(), help="E.g. 101,102 or 101-110. Default: seed of params.yaml.")
@click.option("--folds", type=Numbers(), help="E.g. 1-5. Default: ingest.fold.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 32), help="Runs at a time.")
@click.option("--again", is_flag=True, help="Also repeat what is finished.")
@click.option("--dry", is_flag=True, help="Only say what would run.")
def run(
    seeds: tuple[int, ...] | None, folds: tuple[int, ...] | None, jobs: int, again: bool, dry: bool
) -> None:
    """Run every seed with every fold, up to the report.

    What this commit has finished with these parameters is not run again: all of params.yaml counts but seed,
    ingest.fold and the section machine. Runs with other parameters are kept beside it. Uncommitted changes to
    code and other files are part of a run but are not looked at: after such a change, give --again.

    Ctrl-C stops showing, not running: `dvc queue status` says what is left, `dvc queue kill` ends it.
    """
    from pathlib import Path

    from erv.environment import load_environment
    from erv.libraries import require_locked
    from erv.pipeline import PipelineError
    from erv.repeat import experiments
    from erv.repeat.parameters import digest, of_workspace
    from erv.repeat.plan import plan
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers

    settings = load_settings(Path("params.yaml"))
    repeats = plan(
        seeds or (settings.seed,),
        folds or (settings.ingest.fold,),
        settings,
        digest(of_workspace(Path.cwd())),
    )
    environment = load_environment()
    if not dry:  # each run would be refused by itself
        check_servers(environment, ("MLflow",))
        require_locked(environment.workspace, settings.runtime.python)
    known = experiments.finished(environment.workspace)
    done = {} if again else known
    waiting = experiments.queued(environment.workspace)
    for repeat in repeats:
        state = "finished" if repeat in done else "in DVC's queue" if repeat in waiting else "to run"
        click.echo(f"seed {repeat.seed}, fold {repeat.fold}: {state} ({repeat.name})")
        if state == "to run" and not dry:
            if repeat in known:
                experiments.forget(repeat, environment)
            experiments.enqueue(repeat, environment, ["report"])
    if dry or all(repeat in done for repeat in repeats):
        return
    experiments.run_queue(environment, jobs)
    found = experiments.finished(environment.workspace)
    failed = [repeat.name for repeat in repeats if repeat not in found]
    if len(failed) < len(repeats):
        _show(seeds, folds, "overall", pooled=False)
    if failed:
        raise PipelineError(
            f"{len(failed)} of {len(repeats)} runs failed: {', '.join(failed)}; `dvc queue logs {failed[0]}`"
            " says why, and `erv repeat run` runs them again"
        )


@command.command()
@click.option("--seeds", type=Numbers(), help="Only these. Default: all that are finished.")
@click.option("--folds", type=Numbers(), help="Only these.")
@click.option("--scope", default="overall", show_default=True, help="overall, or a data set.")
@click.option("--pooled", is_flag=True, help="Also pool the clips of all five folds, per seed.")
def table(seeds: tuple[int, ...] | None, folds: tuple[int, ...] | None, scope: str, pooled: bool) -> None:
    """Show the finished runs of this commit: mean, standard deviation and range, and clear differences.

    Only runs with the parameters that params.yaml has now count (but for seed, ingest.fold and machine);
    others are named. Differences are those of register.policy against each other policy.
    With five folds, the mean over folds is what publications on MAFW and DFEW report.
    """
    _show(seeds, folds, scope, pooled=pooled)


def _show(seeds: tuple[int, ...] | None, folds: tuple[int, ...] | None, scope: str, *, pooled: bool) -> None:
    from pathlib import Path

    from erv.repeat.tables import tables

    for line in tables(Path.cwd(), seeds, folds, scope, pooled=pooled):
        click.echo(line)
