"""`erv explain`: what a version says about clips, while it says it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from erv.environment import Environment
    from erv.register.opened import Opened


@click.command(name="explain")
@click.argument("clips", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CLIP...")
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="The version that answers: models:/NAME/1, NAME@ALIAS, 1, champion.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A bundle in a folder instead, such as models/candidate; needs no registry.",
)
@click.option(
    "--dataset", help="The data set that the clips are like, whose emotions count; one of the version's."
)
@click.option("--subtitle", help="What is said in the clips; where the question has a place for it.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON object per clip, in a line of its own.")
def command(
    clips: tuple[Path, ...],
    model: str,
    bundle: Path | None,
    dataset: str | None,
    subtitle: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Explain the emotion in each CLIP, a video file, as the version writes it.

    Sentences that speak of the answer have a `+` and are green, those that speak of other emotions have a `-`
    and are red, by the verifier. This erv's code answers; `erv predict` asks a version with its own, and
    keeps the answers. If a clip can't be answered, the others are, and the exit code is 1.
    """
    from erv.answering.events import Answer, Done, Error
    from erv.answering.requests import Request
    from erv.environment import isolate, load_environment
    from erv.errors import ExitCode
    from erv.predict.explain import explained, fault_of
    from erv.predict.listing import shown
    from erv.predict.told import Told

    environment = load_environment()
    isolate(environment)
    # A version may take minutes to fetch and to load; for nothing but mistyped names none is needed.
    needed = any(fault_of(clip) is None for clip in clips)
    opened = _opened(model, bundle, environment) if needed else None
    head: dict[str, str | None] = dict.fromkeys(("model", "version", "bundle"))
    if opened is not None:
        head = {"model": opened.name, "version": opened.number, "bundle": opened.digest}
    folder = None if opened is None else opened.folder
    terminal = sys.stdout.isatty() and not as_json
    failed = 0
    log = environment.state / "explain.log"
    request = Request(dataset=dataset, subtitle=subtitle)
    for asked in explained(folder, clips, request, device=device, log=log):
        name = shown(asked.clip)
        told = Told(name, terminal=terminal, write=lambda text: click.echo(text, nl=False))
        if not as_json:
            told.begin()
        scores: Mapping[str, float] = {}
        for event in asked.events:
            if isinstance(event, Answer):
                scores = event.scores
            if not as_json:
                told.tell(event)
            elif isinstance(event, (Done, Error)):
                click.echo(json.dumps({"clip": name, **head, **_said(event, scores)}))
            failed += isinstance(event, Error)
    if failed:
        click.get_current_context().exit(ExitCode.ERROR)


def _opened(model: str, bundle: Path | None, environment: Environment) -> Opened:
    """What answers; says that it is being loaded, and what is to know of it."""
    from erv.register.opened import opened_folder, opened_version

    if bundle is not None:
        click.echo(f"loading {bundle} ...", err=True)
        opened = opened_folder(bundle)
    else:
        from erv.commands.version import resolved_version
        from erv.register.fetched import fetch_version

        found = resolved_version(model, environment)
        click.echo(f"loading {found.name}/{found.version} ...", err=True)
        opened = opened_version(fetch_version(found, environment))
    if opened.notice is not None:
        click.echo(opened.notice, err=True)
    return opened


def _said(event: Any, scores: Mapping[str, float]) -> dict[str, Any]:
    """The last event of a clip as JSON has it: its fields and the answer's scores, or `error` and `code`."""
    content: dict[str, Any] = event.as_dict()
    if content.pop("kind") == "error":
        return {"error": content["sentence"], "code": content["code"]}
    return {"answer": content.pop("answer"), "scores": dict(scores), **content}
