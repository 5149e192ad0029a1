"""`erv compare`: two versions, runs, experiments or commits side by side."""

from __future__ import annotations

import json

import click


@click.command(name="compare")
@click.argument("before", metavar="A")
@click.argument("now", metavar="[B]", default=".")
@click.option("--policy", "policies", multiple=True, help="Only this policy; may be given several times.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(before: str, now: str, policies: tuple[str, ...], as_json: bool) -> None:
    """Say what differs from A to B: parameters, code, data, and metrics, paired clip by clip.

    A and B are model versions (champion, 3, NAME@ALIAS, models:/NAME/3), ids of MLflow runs or their first 8
    digits, experiments of DVC, git revisions, or `.`, the workspace as it is, which is B if left out.
    """
    from erv.comparison.compare import compare_sides
    from erv.comparison.sides import find_side
    from erv.environment import isolate, load_environment
    from erv.settings import load_settings

    environment = load_environment()
    isolate(environment)
    settings = load_settings()
    one, other = (find_side(target, environment, settings) for target in (before, now))
    found = compare_sides(one, other, environment, settings, policies)
    if as_json:
        click.echo(json.dumps(found.document(), indent=1, ensure_ascii=False))
        return
    click.echo("\n".join(found.lines()))
