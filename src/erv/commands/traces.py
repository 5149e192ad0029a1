"""`erv traces`: clips of an evaluation as traces in MLflow."""

from __future__ import annotations

import click

from erv.traces.choice import DEFAULT, KINDS


@click.command(name="traces")
@click.argument("policies", nargs=-1, metavar="[POLICY ...]")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(KINDS),
    default=DEFAULT,
    show_default=True,
    help="Clips of this kind; may be repeated.",
)
@click.option("--limit", type=click.IntRange(1), help="At most so many clips per policy.")
def command(policies: tuple[str, ...], only: tuple[str, ...], limit: int | None) -> None:
    """Write clips of finished evaluations to MLflow as traces, for people to look at and assess.

    By default those of all policies in `compare.policies` on which judges disagree, or whose right answer
    has an explanation that speaks of another emotion. A trace has prompt, completion, the truth and what
    each judge reads. It belongs to the run of evaluate@POLICY. Repeating the command writes nothing twice.
    """
    import logging

    from erv import pipeline
    from erv.environment import isolate, load_environment
    from erv.errors import EvaluationError
    from erv.progress import meter
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers
    from erv.stage import configure_logging
    from erv.traces.choice import choose
    from erv.traces.evaluated import find_runs, read_evaluation
    from erv.traces.writing import TraceWriter

    environment = load_environment()
    check_servers(environment, ("MLflow",))
    isolate(environment)
    configure_logging(environment)
    known = load_settings().compare.policies
    if unknown := [name for name in policies if name not in known]:
        raise EvaluationError(
            f"policy {unknown[0]!r} is not in compare.policies of params.yaml, expected some of"
            f" {', '.join(known)}"
        )
    names = list(dict.fromkeys(policies or known))
    repaired = pipeline.repair_lock()
    if repaired is not None:
        click.echo(repaired, err=True)
    entries = pipeline.read_lock_entries()
    evaluations = [read_evaluation(name, entries) for name in names]
    runs = find_runs(names, entries, environment)
    for evaluated, run in zip(evaluations, runs, strict=True):
        chosen = choose(evaluated.rows, only, limit)
        writer = TraceWriter(environment, evaluated, run)
        missing = writer.missing(chosen)
        done = len(chosen) - len(missing)
        what = f"traces of {evaluated.policy}"
        with meter(what, len(chosen), "clips", logging.getLogger("erv.traces"), done=done) as bar:
            for row in missing:
                writer.write(row)
                bar.update()
        click.echo(
            f"{evaluated.policy}: {len(chosen)} of {len(evaluated.rows)} clips chosen,"
            f" {len(missing)} written, {done} were there before"
        )
        click.echo(f"  {run.page(environment)}")
