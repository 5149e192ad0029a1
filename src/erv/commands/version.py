"""The versions that arguments of commands name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from erv.environment import Environment
from erv.lineage.resolved import resolved_version

if TYPE_CHECKING:
    from erv.register.verdict import Verdict
    from erv.settings import Settings

__all__ = ["echo_registry", "expected", "resolved_version", "spoken_gate"]


def _number(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    from erv.register.versions import is_number

    if value is None or value == "none" or is_number(value):
        return value
    zeros = ", which has zeros in front" if value.isdecimal() else ""
    raise click.BadParameter(f"expected the number of a version, or none; got {value!r}{zeros}")


expected = click.option(
    "--from",
    "number",
    metavar="N",
    callback=_number,
    help="Only if version N is champion now; none: only if there is no champion.",
)


def echo_registry(environment: Environment) -> None:
    """Names the registry that a command has changed."""
    click.echo(f"registry: MLflow at {environment.mask(environment.mlflow_uri or 'no address')}")


def spoken_gate(environment: Environment, settings: Settings) -> Callable[[str], Verdict]:
    """The gate on lineage; it says when it begins, because it reads all files of a version."""
    from erv.lineage.gate import LineageGate

    gate = LineageGate(environment, settings, promoting=True)

    def verified(number: str) -> Verdict:
        click.echo(f"verifying the lineage and the files of version {number}", err=True)
        return gate(number)

    return verified
