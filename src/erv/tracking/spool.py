"""What a running stage keeps in `.erv/spool/<run>/`: events that MLflow lacks, and copies of artifacts.

If it can't be written (a full disk, say), one warning says so and the stage goes on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from erv.environment import Environment
from erv.files import remove
from erv.tracking import records
from erv.tracking.delivery import Event, write_events, write_header
from erv.tracking.header import RunHeader

logger = logging.getLogger(__name__)


class Spool:
    """The spool folder of one run."""

    def __init__(self, environment: Environment, header: RunHeader) -> None:
        self._environment = environment
        self._header = header
        self._folder = environment.state / "spool" / header.key
        self._failed = False
        self._files = 0

    def keep(self, events: Sequence[Event]) -> bool:
        """Writes undelivered events to the spool; returns whether it could."""
        try:
            write_header(self._folder, self._header)
            write_events(self._folder, events)
        except OSError as error:
            self._report(error)
            return False
        return True

    def note(self) -> None:
        """Notes on disk that the run exists, and which is the newest of its stage."""
        try:
            write_header(self._folder, self._header)
            if self._header.run_id is not None:
                records.write(self._environment, self._header)
        except OSError as error:
            self._report(error)

    def copy(self, path: Path) -> Path:
        """Copies a file or folder in its current state; returns the copy, or `path` if it can't be copied."""
        self._files += 1
        copy = self._folder / "files" / str(self._files) / path.name
        try:
            copy.parent.mkdir(parents=True)
            if path.is_dir():
                shutil.copytree(path, copy)
            else:
                shutil.copyfile(path, copy)
        except OSError as error:
            remove(copy.parent)
            self._report(error)
            return path  # as it will be when it is sent
        return copy

    def clear(self) -> None:
        """Removes the folder of a run that MLflow has received whole."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _report(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            logger.warning(
                "%s: %s; the stage goes on, and what MLflow has not received yet stays in memory only: "
                "free some space",
                error.filename or self._folder,
                error.strerror or error,
            )
