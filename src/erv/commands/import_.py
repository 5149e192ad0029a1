"""`erv import`: a folder from elsewhere as an external version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click


def _name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """The rule of register.model_name: MLflow's addresses have no room for slashes."""
    if value is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    from erv.settings.section import NAME_OF_A_MODEL

    try:
        return TypeAdapter(Annotated[str, NAME_OF_A_MODEL]).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.BadParameter(f"{message}; got {value!r}") from None


@click.command(name="import")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", callback=_name, help="The registered model; by default register.model_name.")
@click.option(
    "--verifier",
    type=click.Path(path_type=Path),
    default=Path("models/verifier"),
    show_default=True,
    help="The verifier for a FOLDER that has none.",
)
def command(folder: Path, name: str | None, verifier: Path) -> None:
    """Register FOLDER, which `erv export` wrote or which holds any policy, as an external version.

    Nothing in it is run. The version answers like any other, but has no gates and no lineage beyond its own
    files, and no alias leads to it: `erv promote N --force --reason TEXT` makes it champion.
    """
    from erv.environment import isolate, load_environment
    from erv.files import scratch_folder, sweep
    from erv.register.decoding import serving_settings
    from erv.register.external import hidden, register_external, write_external
    from erv.settings import load_settings
    from erv.stack.one_origin import check_servers
    from erv.stack.own_code import require_own_code

    environment = load_environment()
    require_own_code(environment.workspace)  # a version is stored with it
    check_servers(environment, ("S3", "MLflow"))
    isolate(environment)
    settings = load_settings()
    model = name or settings.register_.model_name
    imports = environment.state / "external"
    sweep(imports)
    # A folder of its own, since others may import at the same time.
    with scratch_folder(imports / "incoming" / "import" / "bundle", shared=True) as work:
        bundle = write_external(
            folder,
            work / "candidate",
            verifier=verifier,
            serving=serving_settings(settings),
            datasets=settings.roles.test,
        )
        number, new = register_external(bundle, environment, model)
    if names := hidden(folder):
        click.echo(f"left out {', '.join(names)}: the names begin with a dot")
    click.echo(f"{model} version {number} {'registered' if new else 'was already registered'} as external")
