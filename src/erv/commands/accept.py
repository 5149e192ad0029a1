"""`erv accept`: keep results although their code has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from erv.accept.accept import Proposal


@click.command(name="accept")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--all", "everything", is_flag=True, help="Keep every result that can be kept.")
@click.option(
    "--reason", default="", metavar="TEXT", help="Why a change of the code doesn't matter; recorded."
)
def command(targets: tuple[str, ...], everything: bool, reason: str) -> None:
    """Keep results of stages whose code has changed in ways that can't matter.

    Without arguments it shows what could be kept, and why. With TARGETs (`sft`, `grpo@erv`) or --all, it
    keeps results whose code differs in comments, docstrings and formatting alone; with a --reason, also
    others. It writes dvc.lock and accepted.json, and touches no output. A stage whose data or parameters have
    changed is refused.
    """
    if everything and targets:
        raise click.UsageError("--all takes no targets; leave one of them out")
    if reason and not (everything or targets):
        raise click.UsageError("--reason is for the stages that you name; give TARGETs or --all")
    from erv import pipeline
    from erv.accept.accept import keep, propose

    with pipeline.one_pipeline_at_a_time():
        repaired = pipeline.repair_lock()
        if repaired is not None:
            click.echo(repaired, err=True)
        stages = pipeline.read_stages()
        named = [stage for stage in stages if not targets or {stage.name, stage.group} & {*targets}]
        pipeline.select(stages, targets)  # refuses a target that is no stage
        proposals = propose(named)
        if not targets and not everything:
            _show(proposals)
            return
        able = [item for item in proposals if not item.refusals and (reason or item.harmless)]
        chosen = proposals if targets else able
        records = keep(chosen, reason)
    for record in records:
        click.echo(f"{record.stage}: {record}")
    for item in proposals:
        if item not in chosen:
            click.echo(f"{item.stage}: {item.verdict}")
    if not records:
        click.echo("nothing to keep: no result is out of date for its code alone")
        return
    count = "1 result" if len(records) == 1 else f"{len(records)} results"
    click.echo(f"{count} kept; commit dvc.lock and {pipeline.ACCEPTED} with the code")


def _show(proposals: Sequence[Proposal]) -> None:
    for item in proposals:
        click.echo(f"{item.stage}: {item.verdict}")
        for file in item.files:
            click.echo(f"  {file.path}: {file.change}")
    if not proposals:
        click.echo("every stage is up to date by itself: there is nothing to keep")
        return
    click.echo(
        offer(
            sum(item.harmless for item in proposals),
            sum(not item.refusals for item in proposals),
            len(proposals),
        )
    )


def offer(harmless: int, able: int, count: int) -> str:
    """What `erv accept --all` can do, as a sentence.

    Args:
        harmless: how many results can be kept as they are.
        able: how many can be kept at all.
        count: how many stages would run again by themselves.
    """
    stages = (
        "1 stage would run again by itself" if count == 1 else f"{count} stages would run again by themselves"
    )
    if not able:
        return (
            f"{stages}, and no result of theirs can be kept"
            if count > 1
            else f"{stages}, and its result can't be kept"
        )
    if not harmless:
        return f"{stages}: `erv accept --all --reason TEXT` keeps {able}"
    more = f", and {able - harmless} more with --reason TEXT" if able > harmless else ""
    return f"{stages}: `erv accept --all` keeps {harmless}{more}"
