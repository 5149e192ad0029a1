"""What people say about answers: kept in a journal at once, and written to MLflow as traces.

The journal (`feedback.jsonl`) is the record. Each line has the answer with what was said of it, complete in
itself; a later line about the same answer replaces what was said before. MLflow gets it too, in the
background: a trace per answer with human assessments. What MLflow could not be told is told with the next
feedback, or at the next start: `sent.jsonl` has what it knows.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from erv.app.given import Given
from erv.errors import DataError, ErvError, StackError
from erv.files import sha256_of_text

logger = logging.getLogger(__name__)

JOURNAL, SENT, CLIPS = "feedback.jsonl", "sent.jsonl", "clips"
LONGEST = 4000  # characters of a correction
Thumb = Literal["up", "down"]


@dataclass(frozen=True)
class Opinion:
    """What somebody says about an answer.

    Attributes:
        thumb: whether the explanation helps; None if that wasn't said.
        emotion: the right emotion; None if the answer is right, or nothing was said.
        explanation: a better explanation; None likewise.
        preferred: whether it is better than the answer beside it; None without one, or for a tie.
        beside: id of the answer beside it.
    """

    thumb: Thumb | None = None
    emotion: str | None = None
    explanation: str | None = None
    preferred: bool | None = None
    beside: str | None = None


class LineRefused(StackError):
    """MLflow answers, and doesn't take this line."""


class Feedback:
    """The journal of a workspace; any thread may use it.

    Args:
        folder: of journal and kept clips; only this user can read it.
        send: tells MLflow a line; raises LineRefused, or another ErvError if MLflow takes none at the moment.
            None if there is no MLflow.
    """

    def __init__(self, folder: Path, send: Callable[[Mapping[str, Any]], None] | None = None) -> None:
        self.folder, self._send = folder, send
        # Nobody who says or keeps something waits for MLflow, which may take minutes to be away.
        self._journal, self._clips, self._telling = threading.Lock(), threading.Lock(), threading.Lock()
        self._news = threading.Event()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)

    def add(self, given: Given, opinion: Opinion) -> None:
        """Keeps an opinion; it is on the disk when this returns."""
        line = _line(given, opinion)
        with self._journal:
            _append(self.folder / JOURNAL, line)
        self._news.set()

    def keep_telling(self) -> None:
        """Tells MLflow in the background, now and after each opinion, while this process runs."""
        if self._send is not None:
            threading.Thread(target=self._tell_on, name="feedback", daemon=True).start()

    def tell(self) -> bool:
        """Tells MLflow what it doesn't know yet; whether it knows all now.

        Raises:
            DataError: a line of the journal is damaged.
        """
        if self._send is None:
            return False
        with self._telling:
            return self._tell(self._send)

    def keep(self, name: str, content: bytes) -> str:
        """Keeps the file of a clip; returns the name of the kept file: its content's hash and its ending."""
        from hashlib import sha256

        from erv.files import whole_file

        suffix = Path(name).suffix.lower()
        suffix = suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ".mp4"
        digest, clips = sha256(content).hexdigest(), self.folder / CLIPS
        with self._clips:
            if found := sorted(clips.glob(f"{digest}.*")):  # the same clip under another name
                return found[0].name
            clips.mkdir(exist_ok=True, mode=0o700)
            path = clips / f"{digest}{suffix}"
            with whole_file(path, durable=True) as temporary:
                temporary.write_bytes(content)
        return path.name

    def _tell_on(self) -> None:
        while True:
            self._news.clear()
            try:
                self.tell()
            except DataError as error:
                logger.error("MLflow isn't told of feedback: %s", error)
            except Exception:  # the thread must not end
                logger.exception("MLflow could not be told of feedback")
            self._news.wait()

    def _tell(self, send: Callable[[Mapping[str, Any]], None]) -> bool:
        """As `tell`. Only the last line about an answer counts, so an older one is never told after it."""
        with self._journal:
            lines = latest(self.folder)
        sent = {str(line["line"]) for line in read_lines(self.folder / SENT)}
        whole = True
        for line in lines:
            name = sha256_of_text(json.dumps(line, sort_keys=True))
            if name in sent:
                continue
            try:
                send(line)
            except LineRefused as error:
                what = f"{line['clip']['name']!r} of {line['at']}"
                logger.error("feedback about %s is kept, but MLflow doesn't take it: %s", what, error)
                whole = False
                continue
            except ErvError as error:
                logger.warning("feedback is kept, but MLflow doesn't have it yet: %s", error)
                return False
            _append(self.folder / SENT, {"line": name})
        return whole


def latest(folder: Path) -> list[dict[str, Any]]:
    """The last line about each answer, in the order of the journal.

    Raises:
        DataError: a line is damaged.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in read_lines(folder / JOURNAL):
        found.pop(line["answer"]["id"], None)
        found[line["answer"]["id"]] = line
    return list(found.values())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; the last one is left out if it was cut off by a crash.

    Raises:
        DataError: another line is damaged.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            return
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: damaged ({error}); restore it from a backup, or delete this line"
            ) from None


def _line(given: Given, opinion: Opinion) -> dict[str, Any]:
    done = given.done
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": {
            "name": given.version.name,
            "number": given.version.number,
            "bundle": given.version.digest,
        },
        "clip": {"name": given.clip, "sha256": given.sha256, "kept": given.kept, "subtitle": given.subtitle},
        "answer": {
            "id": given.id,
            "emotion": done.answer,
            "name": given.name,
            "explanation": done.explanation,
            "completion": done.completion,
            "agreement": done.agreement,
        },
        "said": asdict(opinion),
    }


def _append(path: Path, content: Mapping[str, Any]) -> None:
    """Adds a line that is on the disk when this returns; a line that a crash cut off is taken away first."""
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as stream:
        whole = stream.read()
        if whole and not whole.endswith(b"\n"):
            stream.truncate(whole.rfind(b"\n") + 1)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as stream:
        stream.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
