"""`erv sample-data`: writes the sample corpus and, on request, uploads it to the raw bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from erv.environment import Environment


@click.command(name="sample-data")
@click.option("--out", type=click.Path(path_type=Path), default=Path(".erv/sample"), show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--size", default="demo", show_default=True, help="demo, tiny, or a number of MAFW clips.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Rendering processes.")
@click.option("--upload", is_flag=True, help="Also upload each tree to the raw bucket of the stack.")
@click.option("--shared", is_flag=True, help="With --upload: also to a server that isn't this clone's own.")
@click.option("--skip-base", is_flag=True, help="Leave out the base checkpoint, which has to be trained.")
def command(
    out: Path, seed: int, size: str, workers: int, upload: bool, shared: bool, skip_base: bool
) -> None:
    """Write stand-ins for MAFW, DFEW and the reasoning set, with a base checkpoint to start from.

    The clips are synthetic drawings; the layouts are the official ones. The same seed and size give the same
    files for any number of workers. Existing trees are kept. --upload takes the stack of this clone's own;
    nothing goes into a bucket of others unless you say --shared.
    """
    from erv.environment import load_environment
    from erv.sample.sample import write_sample

    environment = load_environment()
    if upload and not shared:
        _refuse_shared(environment)

    def progress(line: str) -> None:
        click.echo(line, err=True)

    folders = write_sample(out, seed, size, workers=workers, skip_base=skip_base, progress=progress)
    if upload:
        from erv.sample.upload import upload_sample
        from erv.storage.store import open_store

        store = open_store(environment)
        store.ensure_bucket(environment.raw_bucket, versioning=True)
        upload_sample(folders, f"s3://{environment.raw_bucket}", store, progress)
    click.echo(f"{out}: {', '.join(folder.name for folder in folders)}")


def _refuse_shared(environment: Environment) -> None:
    """Before minutes of work, too: the sample in a team's bucket would be everybody's."""
    from erv.environment import clone_state, shared_servers
    from erv.errors import StackError

    if clone_state(environment.workspace) == "connected" or "S3" in shared_servers(environment):
        where = f" at {environment.s3_endpoint}" if environment.s3_endpoint else ""
        raise StackError(
            f"the sample corpus would go into the bucket {environment.raw_bucket}{where}, which is not this"
            " clone's own; nothing was written. If your team wants it there, say --shared"
        )
