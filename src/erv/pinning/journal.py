"""The journal of a pin: what it has already read, appended as it goes and dropped once the lock is saved."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import TracebackType

from erv.errors import DataError

PINS = Path(".erv/pins")


class Journal:
    """Digests of objects by path, size and version; one pin of a source at a time.

    Args:
        path: of the file; None to keep nothing.
        uri: of the source; entries for another source are dropped.
    """

    def __init__(self, path: Path | None, uri: str) -> None:
        from filelock import FileLock

        self._path, self._uri = path, uri
        self._guard = threading.Lock()
        self._known: dict[tuple[str, int, str], str] = {}
        self._turn = FileLock(path.with_suffix(".lock")) if path else None

    def __enter__(self) -> Journal:
        from filelock import Timeout

        if self._path and self._turn:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._turn.acquire(timeout=0)
            except Timeout:
                raise DataError(
                    f"{self._path}: another `erv data pin` of this source is running; wait for it to finish"
                ) from None
            self._read(self._path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._turn:
            self._turn.release()

    def find(self, path: str, size: int, version: str | None) -> str | None:
        """The recorded sha256 of an object or a folder of frames; None if there is none."""
        return self._known.get((path, size, version)) if version else None

    def note(self, path: str, size: int, version: str | None, sha256: str) -> None:
        """Records what was read. From then on it survives this process."""
        if self._path is None or version is None:
            return
        line = json.dumps({"path": path, "bytes": size, "version": version, "sha256": sha256})
        with self._guard, self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def _read(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        if not lines or lines[0] != json.dumps({"uri": self._uri}):
            path.write_text(json.dumps({"uri": self._uri}) + "\n", encoding="utf-8")
            return
        for line in lines[1:]:
            try:
                item = json.loads(line)
                self._known[item["path"], item["bytes"], item["version"]] = item["sha256"]
            except (ValueError, KeyError, TypeError):
                continue  # cut short when the process was killed: that object is read again
        # A line that was cut short must not swallow the next one.
        with path.open("a", encoding="utf-8") as stream:
            stream.write("\n")
