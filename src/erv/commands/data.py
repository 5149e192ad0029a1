"""`erv data`: pins the sources."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from erv.settings.ingest import ReaderSettings
    from erv.sources import Lock, Selection


@click.group(name="data")
def command() -> None:
    """Work with the sources of the pipeline."""


@command.command(name="pin")
@click.argument("names", nargs=-1)
@click.option("--params", type=click.Path(path_type=Path), default=Path("params.yaml"), show_default=True)
def pin(names: tuple[str, ...], params: Path) -> None:
    """Write data/sources/NAME.lock.json for all sources of params.yaml, or for NAMES.

    A lock lists every file of a source with its hash, and what its zips hold. The stages depend on the lock:
    pin again after the source has changed, and what depends on it runs again. A pin that was interrupted goes
    on where it stopped.
    """
    from erv.errors import SettingsError
    from erv.pinning import PINS
    from erv.pinning import pin as pin_source
    from erv.settings import load_settings
    from erv.sources import LOCKS, Selection, store_for

    settings = load_settings(params)
    sources, readers = settings.sources.model_dump(), settings.ingest.readers
    unknown = [name for name in names if name not in sources]
    if unknown:
        raise SettingsError(f"source {unknown[0]!r} is not in {params}; expected one of {', '.join(sources)}")
    chosen = {name: sources[name] for name in (names or sources)}
    store = store_for(chosen.values())
    for name, uri in chosen.items():
        path, journal = LOCKS / f"{name}.lock.json", PINS / f"{name}.jsonl"
        previous = _previous(path)
        with _progress():
            lock = pin_source(
                name,
                uri,
                store,
                selection=_selection(readers[name]) if name in readers else Selection(),
                previous=previous,
                journal=journal,
            )
        state = "pinned" if lock.save(path) else "unchanged"
        journal.unlink(missing_ok=True)
        click.echo(f"{name}: {state}, {_summary(lock)}")


def _previous(path: Path) -> Lock | None:
    """The lock of before; one that is damaged is said to be and written anew."""
    from erv.errors import DataError
    from erv.sources import Lock

    if not path.is_file():
        return None
    try:
        return Lock.load(path)
    except DataError as error:
        click.echo(f"{error}: doing so now", err=True)
        return None


def _selection(reader: ReaderSettings) -> Selection:
    from erv.ingest.readers.by_name import selection_of

    return selection_of(reader)


def _summary(lock: Lock) -> str:
    """What a lock holds, in one line."""
    members = sum(file.archive is not None for file in lock.files)
    folders = sum(file.frames is not None for file in lock.files)
    whole = [file for file in lock.files if file.archive is None]
    size = sum(file.bytes for file in whole) / 1e6
    parts = [f"{sum(file.frames is None for file in whole)} files, {size:.1f} MB"]
    if members:
        parts.append(f"{members} in zips")
    if folders:
        parts.append(f"{folders} folders of frames")
    if lock.skipped["files"]:
        skipped = f"{lock.skipped['files']} files ({lock.skipped['bytes'] / 1e6:.1f} MB)"
        parts.append(f"{skipped} skipped, not needed by its reader")
    return ", ".join(parts)


@contextmanager
def _progress() -> Iterator[None]:
    """Shows on stderr how far a long pin is."""
    logger, handler = logging.getLogger("erv"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate
