"""Training checkpoints in the object store, so that another worker goes on where one was lost.

While a stage runs, whole checkpoints are copied to the board of the stage, with what lies beside them (the
curves so far); a checkpoint's record goes last, as on disk. Each attempt has copies of its own: two workers,
one of which only seems to be gone, can't mix theirs.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from erv.checkpoints import PREFIX, RECORD, ROOT, is_complete
from erv.errors import ErvError
from erv.files import sha256_of_file
from erv.remote.board import Board
from erv.storage.errors import ObjectError

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_READINGS = 3
_RECORDED = re.compile(rf"(?P<attempt>\d{{4}})/checkpoints/(?P<folder>.+)/{PREFIX}(?P<step>\d+)/{RECORD}")


@dataclass(frozen=True)
class Stored:
    """A whole checkpoint on the board: the attempt that made it, its folder below `ROOT`, its step."""

    attempt: int
    folder: str
    step: int


def stored_checkpoints(board: Board) -> list[Stored]:
    """All whole checkpoints of a stage, the furthest last."""
    base = board.uri.partition("://")[2].partition("/")[2]
    found = []
    for info in board.store.list(board.uri):
        if match := _RECORDED.fullmatch(info.key.removeprefix(f"{base}/")):
            found.append(Stored(int(match["attempt"]), match["folder"], int(match["step"])))
    return sorted(found, key=lambda one: (one.step, one.attempt))


def fetch_checkpoints(board: Board, workspace: Path) -> int | None:
    """Brings the checkpoints of the attempt that got furthest into a checkout.

    The stage checks their content itself, and takes none that is damaged or of other libraries. The worker of
    an attempt that only seems lost may replace its checkpoints while they are read: then they are read anew.

    Returns:
        The step of the furthest; None if there are none.

    Raises:
        StorageError: the store can't be asked, or checkpoints vanish again and again.
    """
    from funcy import retry

    step: int | None = retry(_READINGS, errors=ObjectError)(_fetch)(board, workspace)
    return step


def _fetch(board: Board, workspace: Path) -> int | None:
    stored = stored_checkpoints(board)
    if not stored:
        return None
    furthest = stored[-1]
    base = f"{board.attempt_uri(furthest.attempt)}/checkpoints"
    key = base.partition("://")[2].partition("/")[2]
    whole = {f"{one.folder}/{PREFIX}{one.step}" for one in stored if one.attempt == furthest.attempt}
    records = []
    for info in board.store.list(base):
        name = info.key.removeprefix(f"{key}/")
        parts = Path(name).parts
        checkpoint = next(
            (str(Path(*parts[: i + 1])) for i, p in enumerate(parts) if p.startswith(PREFIX)), None
        )
        if ".." in parts or (checkpoint is not None and checkpoint not in whole):
            continue
        if checkpoint is not None and name == f"{checkpoint}/{RECORD}":
            records.append((info.uri, workspace / ROOT / name))
        else:
            board.store.download(info.uri, workspace / ROOT / name, size=info.size)
    for uri, path in records:
        board.store.download(uri, path)
    return furthest.step


class Keeping:
    """Copies a stage's checkpoints to the board while the block runs.

    Args:
        board: of the stage.
        attempt: the worker's.
        stage: whose checkpoints.
        workspace: the checkout that it runs in.
        over: whether the attempt no longer counts: then nothing more is written.
        say: takes a sentence.
    """

    def __init__(
        self,
        board: Board,
        attempt: int,
        stage: str,
        workspace: Path,
        over: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self._board, self._over, self._say = board, over, say
        self._attempt = attempt
        self._root = workspace / ROOT
        self._stage = stage
        self._sent: dict[str, str] = {}  # content by path
        self._whole: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="checkpoints", daemon=True)

    def __enter__(self) -> Keeping:
        for record in self._root.glob(f"**/{PREFIX}*/{RECORD}"):
            self._whole.add(self._name(record.parent))  # it came from the board
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        if error is not None and not self._over():
            self._stop.clear()
            self._look()  # what a stage that failed has reached isn't lost

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            folder = self._root / self._stage
            whole = [record.parent for record in sorted(folder.glob(f"**/{PREFIX}*/{RECORD}"))]
            for checkpoint in whole:
                if self._name(checkpoint) not in self._whole and is_complete(checkpoint) and not self._over():
                    self._send(checkpoint)
            self._drop({self._name(checkpoint) for checkpoint in whole})
        except FileNotFoundError:  # the trainer has replaced it by a newer one
            return
        except (ErvError, OSError) as error:  # the store may be away for a moment
            logger.debug("checkpoints can't be copied now: %s", error)

    def _send(self, checkpoint: Path) -> None:
        others = [path for path in checkpoint.parent.iterdir() if not path.name.startswith(PREFIX)]
        beside = sorted(path for top in others for path in (top, *top.rglob("*")) if path.is_file())
        files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != RECORD]
        for path in (*beside, *files, checkpoint / RECORD):
            if self._over() or self._stop.is_set():
                return
            digest = sha256_of_file(path)
            if self._sent.get(self._name(path)) != digest:
                self._board.store.upload(path, self._uri(self._name(path)))
                self._sent[self._name(path)] = digest
        self._whole.add(self._name(checkpoint))
        self._say(f"kept {checkpoint.name} in the object store")

    def _drop(self, present: set[str]) -> None:
        """Removes from the board what the trainer has removed; the record first."""
        ours = {name.rpartition("/")[0] for name in self._sent if name.endswith(f"/{RECORD}")}
        for gone in sorted(ours - present):
            files = [name for name in self._sent if name.startswith(f"{gone}/")]
            for name in sorted(files, key=lambda name: not name.endswith(RECORD)):
                if self._over():
                    return
                self._board.store.delete(self._uri(name))
                del self._sent[name]
            self._whole.discard(gone)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _uri(self, name: str) -> str:
        return f"{self._board.attempt_uri(self._attempt)}/checkpoints/{name}"
