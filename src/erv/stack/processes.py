"""Servers that outlive the shell that started them, and that can be stopped without hitting other processes.

A server gets its own session and a random mark in its environment, which its children inherit. Stopping looks
for the mark. It therefore never touches a process that has since been given the same id, and never forgets a
child whose parent has died.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

MARK = "ERV_STACK_MARK"

# Kept so that Python does not complain at exit about children that are meant to keep running.
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Record:
    """A started server.

    Attributes:
        pid, created: process id and start time (seconds since 1970), which only together identify a process.
        mark: the value of `ERV_STACK_MARK` in the environment of the server and its children.
        fingerprint: hash of the command and its settings; if it changes, the server must be restarted.
    """

    name: str
    pid: int
    created: float
    mark: str
    fingerprint: str

    def save(self, folder: Path) -> None:
        """Writes `<folder>/<name>.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{self.name}.new"
        temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        temporary.replace(folder / f"{self.name}.json")


def load(folder: Path, name: str) -> Record | None:
    """The record of a server; None if the server was not started or the file is damaged."""
    try:
        return Record(**json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None


def forget(folder: Path, name: str) -> None:
    """Removes the record of a server."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def start(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    fingerprint: str,
) -> Record:
    """Starts a server in its own session and appends its output to `log`.

    Only the user can read what it writes: databases, objects, sockets, log.
    """
    mark = f"{name}-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as output:
        output.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} start of {name}\n".encode())
        output.flush()
        process = subprocess.Popen(
            list(command),
            env={**environment, MARK: mark},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    _started.append(process)
    try:
        created = psutil.Process(process.pid).create_time()
    except psutil.NoSuchProcess:
        created = 0.0
    return Record(name, process.pid, created, mark, fingerprint)


def leader(record: Record) -> psutil.Process | None:
    """The server's first process, if it is alive."""
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.created) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def members(record: Record) -> list[psutil.Process]:
    """All live processes of a server, whatever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == record.mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def stop(record: Record, grace: float) -> None:
    """Ends all processes of a server: SIGTERM first, then SIGKILL for those left after `grace` seconds."""
    for process in members(record):
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (alive := members(record)) and time.monotonic() < deadline:
        _reap(record.pid)
        time.sleep(0.1)
    while alive:
        for process in alive:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=1.0)
        alive = members(record)
    _reap(record.pid)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)  # psutil compares the start time first


def _reap(pid: int) -> None:
    """Collects the exit status if the server is a child of this process."""
    with contextlib.suppress(OSError):  # another process's child
        os.waitpid(pid, os.WNOHANG)


# The line of an exception is the most telling, then any line that mentions a failure; the last one counts.
_EXCEPTION = re.compile(r"^(\w+\.)*\w*(Error|Exception)\b.*:")
_TELLING = re.compile(r"error|exception|fatal|panic|denied|in use|cannot|failed", re.IGNORECASE)


# What `start` writes; Python's logging has lines that begin alike, such as "--- Logging error ---".
_START = re.compile(r"^--- \d{4}-\d\d-\d\d \d\d:\d\d:\d\d start of \w+$", re.MULTILINE)


def since_start(text: str) -> str:
    """What a log has after the line of the latest start; all of it without such a line."""
    starts = list(_START.finditer(text))
    return text[starts[-1].end() :] if starts else text


def last_error(log: Path) -> str:
    """The log line since the latest start that says most about a failure."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "no log was written"
    lines = [line.strip() for line in since_start(text).splitlines() if line.strip()]
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    telling = [line for line in lines if _TELLING.search(line)]
    return (exceptions or telling or lines or ["the log is empty"])[-1][:300]
