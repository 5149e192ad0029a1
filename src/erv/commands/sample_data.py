"""`erv sample-data`: writes the sample corpus and, on request, uploads it to the raw bucket."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="sample-data")
@click.option("--out", type=click.Path(path_type=Path), default=Path(".erv/sample"), show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--size", default="demo", show_default=True, help="demo, tiny, or a number of MAFW clips.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Rendering processes.")
@click.option("--upload", is_flag=True, help="Also upload each tree to the raw bucket of the stack.")
@click.option("--skip-base", is_flag=True, help="Leave out the base checkpoint, which has to be trained.")
def command(out: Path, seed: int, size: str, workers: int, upload: bool, skip_base: bool) -> None:
    """Write stand-ins for MAFW, DFEW and the reasoning set, with a base checkpoint to start from.

    The clips are synthetic drawings; the layouts are the official ones. The same seed and size give the same
    files for any number of workers. Existing trees are kept.
    """
    from erv.sample.sample import write_sample

    def progress(line: str) -> None:
        click.echo(line, err=True)

    folders = write_sample(out, seed, size, workers=workers, skip_base=skip_base, progress=progress)
    if upload:
        from erv.environment import load_environment
        from erv.sample.upload import upload_sample
        from erv.storage.store import open_store

        environment = load_environment()
        store = open_store(environment)
        store.ensure_bucket(environment.raw_bucket, versioning=True)
        upload_sample(folders, f"s3://{environment.raw_bucket}", store, progress)
    click.echo(f"{out}: {', '.join(folder.name for folder in folders)}")
