"""`erv data`: pins the sources."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(name="data")
def command() -> None:
    """Work with the sources of the pipeline."""


@command.command(name="pin")
@click.argument("names", nargs=-1)
@click.option("--params", type=click.Path(path_type=Path), default=Path("params.yaml"), show_default=True)
def pin(names: tuple[str, ...], params: Path) -> None:
    """Write data/sources/NAME.lock.json for all sources of params.yaml, or for NAMES.

    A lock lists every file of a source with its hash. The stages depend on the lock: pin again after the
    source has changed, and what depends on it runs again.
    """
    from erv.data.sources import LOCKS, Lock, store_for
    from erv.data.sources import pin as pin_source
    from erv.errors import SettingsError
    from erv.settings import load_settings

    sources = load_settings(params).sources.model_dump()
    unknown = [name for name in names if name not in sources]
    if unknown:
        raise SettingsError(f"source {unknown[0]!r} is not in {params}; expected one of {', '.join(sources)}")
    chosen = {name: sources[name] for name in (names or sources)}
    store = store_for(chosen.values())
    for name, uri in chosen.items():
        path = LOCKS / f"{name}.lock.json"
        previous = Lock.load(path) if path.is_file() else None
        lock = pin_source(name, uri, store, previous=previous)
        state = "pinned" if lock.save(path) else "unchanged"
        click.echo(
            f"{name}: {state}, {len(lock.files)} files, {sum(f.bytes for f in lock.files) / 1e6:.1f} MB"
        )
