"""The process in which a version answers with its own code, and not with that of this workspace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from erv.answering.clips import ROOT_VARIABLE
from erv.errors import EvaluationError
from erv.files import remove
from erv.predict.listing import ListedClip
from erv.register.fetched import FetchedVersion

_CHILD = Path(__file__).with_name("child.py")
_END_SECONDS = 10.0
_SHOWN = 300


class Answering:
    """A version that answers; use as a context manager. The process starts with the first question.

    Args:
        version: what answers.
        log: file for what the process prints.
    """

    def __init__(self, version: FetchedVersion, log: Path) -> None:
        self._version, self._log = version, log
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def ask(self, paths: Sequence[Path], clips: Sequence[ListedClip]) -> list[dict[str, Any]]:
        """What the version says about clips, one row each.

        Args:
            paths: absolute, without links.
            clips: what is known of the same clips.

        Raises:
            EvaluationError: the process failed, or the version is too old to answer clip by clip.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            table = {
                # Below the root of the file system, which is the served folder here.
                "clip": [path.as_posix().removeprefix("/") for path in paths],
                "dataset": [clip.dataset for clip in clips],
                "subtitle": [clip.subtitle for clip in clips],
            }
            process.stdin.write(json.dumps(table) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EvaluationError(
                f"{self._version.title} failed: {self._last_words()}; {self._log} has it all"
            )
        rows: list[dict[str, Any]] = json.loads(line)
        if len(rows) != len(paths) or any("error" not in row for row in rows):
            raise EvaluationError(
                f"{self._version.title} doesn't answer clip by clip; an older erv published it: `erv publish`"
                " the candidate again"
            )
        return rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        if kind is None:
            self._process.stdin.close()  # it ends by itself
            try:
                self._process.wait(_END_SECONDS)
                return
            except subprocess.TimeoutExpired:
                pass
        self._process.kill()
        self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        remove(self._log)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        variables = {
            **os.environ,
            "PYTHONPATH": str(self._version.folder / "code"),
            "PYTHONDONTWRITEBYTECODE": "1",  # the copy stays as it was registered
            ROOT_VARIABLE: "/",
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), str(self._version.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=variables,
            )
        return self._process

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:_SHOWN] if lines else "it was killed"
