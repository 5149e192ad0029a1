"""An engine's process as `benchmarks.extract_engines` sees it: told what to do, and measured."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_POLL_SECONDS = 0.5
_DECODER = "erv.media.worker_process"
_ONE_ENGINE = Path(__file__).with_name("one_engine.py")
_ROOT = Path(__file__).resolve().parents[2]


class EngineError(Exception):
    """An engine did not start, or its process ended."""


class Engine:
    """A running engine.

    Args:
        name: one of `one_engine.ENGINES`.
        lock: the lock file of the clips.
        workers: decoding processes.
        log: where its stderr goes.
        source: the `src` folder that it and its workers run.

    Attributes:
        chunks: number of chunks of all clips.
        start_seconds: from the start of the process until the engine was up.
        peak_bytes: most memory of all its processes so far (PSS: what they share counts once).
    """

    def __init__(self, name: str, lock: Path, workers: int, log: Path, source: Path) -> None:
        began = time.perf_counter()
        self.name, self.log = name, log
        self.peak_bytes = 0
        self._process = subprocess.Popen(
            [sys.executable, str(_ONE_ENGINE), name, str(lock), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=_environment(source),
        )
        self._root = psutil.Process(self._process.pid)
        try:
            self.chunks = int(self._answer()["chunks"])
        except EngineError:
            self.stop()
            raise
        self.start_seconds = time.perf_counter() - began

    def extract(
        self, first: int, last: int, folder: Path, meanwhile: Callable[[], None] | None = None
    ) -> dict[str, Any]:
        """Extracts chunks `first` up to `last`.

        Args:
            first: number of a chunk.
            last: number of the chunk after the last one.
            folder: where the shards go; it is made.
            meanwhile: called again and again while it works.

        Returns:
            What `one_engine` answers, `cpu_seconds` of all processes, and the machine's `load` (one minute).
        """
        folder.mkdir(parents=True)
        before, began = self.cpu_seconds(), time.perf_counter()
        asked = json.dumps({"first": first, "last": last, "folder": str(folder)})
        assert self._process.stdin is not None
        self._process.stdin.write(asked + "\n")
        self._process.stdin.flush()
        answers: list[dict[str, Any]] = []
        waiting = threading.Thread(target=lambda: answers.append(self._answer()))
        waiting.start()
        looked = 0.0
        while waiting.is_alive():
            if time.perf_counter() - looked > _POLL_SECONDS:
                self.peak_bytes = max(self.peak_bytes, sum(map(_bytes_of, self.processes())))
                looked = time.perf_counter()
            if meanwhile is not None:
                meanwhile()
            waiting.join(0.05)
        if not answers:
            raise EngineError(f"{self.name} ended: {self.log.read_text()[-1500:].strip()}")
        return {
            **answers[0],
            "wall_seconds": time.perf_counter() - began,
            "cpu_seconds": self.cpu_seconds() - before,
            "load": psutil.getloadavg()[0],
        }

    def processes(self) -> list[psutil.Process]:
        """It and all that it started."""
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []

    def cpu_seconds(self) -> float:
        """CPU time of all its processes, those that have ended included."""
        total = 0.0
        for process in self.processes():
            try:
                spent = process.cpu_times()
            except psutil.Error:
                continue
            total += spent.user + spent.system + spent.children_user + spent.children_system
        return total

    def decoders(self) -> list[psutil.Process]:
        """Its processes that decode clips."""
        return [process for process in self.processes() if _DECODER in " ".join(_command_of(process))]

    def addresses(self) -> list[str]:
        """The TCP addresses, without ports, at which its processes listen."""
        found = set()
        for process in self.processes():
            try:
                connections = process.net_connections(kind="tcp")
            except psutil.Error:
                continue
            listening = [item.laddr.ip for item in connections if item.status == psutil.CONN_LISTEN]
            found |= {address.removeprefix("::ffff:") for address in listening}
        return sorted(found)

    def kill(self) -> None:
        """Kills it and all that it started; what it was asked for raises EngineError."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def stop(self) -> None:
        """Ends it, and what it left running."""
        left = self.processes()[1:]
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in left:
            if process.is_running():
                process.kill()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(f"{self.name} ended: {self.log.read_text()[-1500:].strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _environment(source: Path) -> dict[str, str]:
    # Ray looks for the functions of `engines` by name, in processes that start in folders of their own.
    path = os.pathsep.join([str(source), str(_ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _bytes_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
