"""One stage of the pipeline at a time, below a guard, and what came of it.

DVC is the only cache. A stage runs as `dvc repro -s` below `erv.pipeline.guard`, in a process of its own, so
that independent stages can run side by side: `dvc` gives up the repository's lock while a command runs and
waits for it afterwards.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from erv.errors import ExitCode, full_disk_text
from erv.pipeline.dead_holders import release_dead_holders
from erv.pipeline.lock_file import PipelineError, keep_lock, read_lock_entries, repair_lock
from erv.pipeline.process import GRACE_SECONDS
from erv.pipeline.restored import damaged_outputs, remove_damaged_objects, remove_outputs
from erv.pipeline.undisturbed import undisturbed

Outcome = Literal["ran", "restored", "unchanged"]

LOCK_FILE = Path(".erv/pipeline.lock")
# Hints that dvc prints for someone at a terminal; in a flow's log they only hide the stage's own lines.
_ADVICE = (
    "To track the changes with git, run:",
    "\tgit add ",
    "To enable auto staging, run:",
    "\tdvc config core.autostage",
    "Use `dvc push` to send",
)
# What it says of a transfer that moved nothing; beside a stage that is to run it reads as if that were done.
NOTHING_MOVED = "Everything is up to date."
_POLL_SECONDS = 0.1
_STOP_SECONDS = 20.0


class StageFailedError(PipelineError):
    """A stage failed; the message is the stage's own."""


class _NotStartedError(StageFailedError):
    """DVC failed before it started the stage's command."""


class StageCancelledError(PipelineError):
    """A stage was stopped at its caller's request; none of its processes are left."""

    exit_code = ExitCode.CANCELLED


@dataclass(frozen=True)
class StageResult:
    """What `repro` did, and how long it took in seconds of wall time."""

    name: str
    outcome: Outcome
    seconds: float


@contextmanager
def one_pipeline_at_a_time(path: str | Path = LOCK_FILE) -> Iterator[None]:
    """Holds the workspace for one pipeline; the kernel frees it when the holder dies, whatever the way.

    Raises:
        PipelineError: another pipeline is running here.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise PipelineError(
            f"another pipeline runs in {Path.cwd()} (it holds {path}); wait for it or cancel it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def repro(
    name: str,
    *,
    on_line: Callable[[str], None] = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
    pull: bool = False,
    force: bool = False,
    grace: float = GRACE_SECONDS,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> StageResult:
    """Brings one stage up to date: runs it, restores its outputs from the cache, or finds nothing to do.

    Restored outputs are hashed. If they are not what `dvc.lock` names, they are restored again, from the
    remote if it has them, or else the stage runs. A damaged `dvc.lock` is repaired first.

    Args:
        name: as in `read_stages`; what it depends on must be up to date.
        on_line: called in this thread with each line of output as it arrives.
        cancelled: polled several times a second; once it returns True, everything the stage started is
            stopped.
        pull: also look for outputs and earlier runs in the remote, which must be reachable.
        force: run even if nothing changed.
        grace: seconds that a stage that is to stop has to end by itself.
        environment: the environment of the command; this process's by default.
        workspace: the top of the repository.

    Raises:
        StageFailedError: with the stage's own last error.
        StageCancelledError: `cancelled` returned True; none of the stage's processes are left.
    """
    started = time.monotonic()
    repaired = repair_lock(workspace)
    if repaired is not None:
        on_line(f"WARNING: {repaired}")
    if dead := release_dead_holders(workspace):
        on_line(f"WARNING: released what {len(dead)} killed DVC processes had locked")

    def attempt(*, force: bool) -> Outcome:
        flags = [*(["--pull"] if pull and not force else []), *(["--force"] if force else [])]
        return _repro_once(name, flags, on_line, cancelled, grace, environment, workspace)

    try:
        outcome = attempt(force=force)
    except _NotStartedError:
        # A damaged listing of a folder in its cache stops DVC before it does anything.
        if not remove_damaged_objects(_entry(name, workspace), workspace):
            raise
        on_line(f"WARNING: {name}: objects in DVC's cache were damaged; trying again without them")
        outcome = attempt(force=force)
    for remedy, forced in (("restoring it again", False), ("running the stage", True)):
        entry = _entry(name, workspace)
        damaged = damaged_outputs(entry, workspace) if outcome == "restored" else []
        if not damaged:
            break
        on_line(f"WARNING: {name}: {damaged[0]} was restored, but is not what dvc.lock names; {remedy}")
        remove_outputs(entry, damaged, workspace)
        outcome = attempt(force=forced)
    keep_lock(workspace)
    return StageResult(name, outcome, time.monotonic() - started)


def _repro_once(
    name: str,
    flags: Sequence[str],
    on_line: Callable[[str], None],
    cancelled: Callable[[], bool],
    grace: float,
    environment: Mapping[str, str] | None,
    workspace: str | Path,
) -> Outcome:
    seen = _Transcript(name)

    def note(line: str) -> None:
        seen.add(line)
        if not line.startswith(_ADVICE):
            on_line(line)

    code = run_guarded(
        dvc_command("repro", "--single-item", *flags, name),
        what=name,
        on_line=note,
        cancelled=cancelled,
        grace=grace,
        environment=environment,
        workspace=workspace,
    )
    if code != 0:
        error = StageFailedError if seen.outcome() == "ran" else _NotStartedError
        raise error(seen.reason(code))
    return seen.outcome()


def _entry(name: str, workspace: str | Path) -> Mapping[str, Any]:
    return read_lock_entries(Path(workspace) / "dvc.lock").get(name, {})


def push(
    *,
    on_line: Callable[[str], None] = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> None:
    """Stores every output of the current `dvc.lock`, and the run cache, in the remote."""
    _transfer("push", ["--run-cache"], on_line, cancelled, environment, workspace)


def push_outputs(
    names: Sequence[str],
    *,
    run_cache: bool = False,
    on_line: Callable[[str], None] = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> None:
    """Stores the outputs of some stages in the remote, and the run cache if asked."""
    arguments = [*(["--run-cache"] if run_cache else []), *names]
    _transfer("push", arguments, on_line, cancelled, environment, workspace)


def pull_outputs(
    names: Sequence[str],
    *,
    on_line: Callable[[str], None] = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> None:
    """Fetches the outputs of some stages, as `dvc.lock` names them, from the remote."""
    _transfer("pull", names, on_line, cancelled, environment, workspace)


def _transfer(
    verb: str,
    arguments: Sequence[str],
    on_line: Callable[[str], None],
    cancelled: Callable[[], bool],
    environment: Mapping[str, str] | None,
    workspace: str | Path,
) -> None:
    seen = _Transcript(verb)

    def note(line: str) -> None:
        seen.add(line)
        if line.rstrip() != NOTHING_MOVED:
            on_line(line)

    code = run_guarded(
        dvc_command(verb, *arguments),
        what=f"dvc {verb}",
        on_line=note,
        cancelled=cancelled,
        environment=environment,
        workspace=workspace,
    )
    if code != 0:
        raise PipelineError(seen.reason(code))


def dvc_command(*arguments: str) -> list[str]:
    """A `dvc` command that waits for the repository's lock as long as it takes."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def run_guarded(
    command: Sequence[str],
    *,
    what: str,
    on_line: Callable[[str], None],
    cancelled: Callable[[], bool],
    grace: float = GRACE_SECONDS,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> int:
    """Runs `command` under `erv.pipeline.guard`, passing on its output line by line; returns its exit code.

    When it is to stop, what it started has `grace` seconds to end by itself.

    Raises:
        StageCancelledError: `cancelled` returned True.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "erv.pipeline.guard", "--grace", str(grace), "--", *command],
        stdin=subprocess.PIPE,  # kept open: the guard stops everything when it closes
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=_environment(environment),
        cwd=workspace,
        start_new_session=True,  # Ctrl-C in a terminal reaches us alone; we stop the rest in order
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), name=f"output-{what}", daemon=True)
    reader.start()
    try:
        while True:
            try:
                line = lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                line = ""
            if line is None:
                return process.wait()
            if line:
                on_line(line.rstrip("\n"))
            if cancelled():
                raise StageCancelledError(f"{what}: cancelled")
    finally:
        with undisturbed():
            process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()  # the kernel then kills what is below it
                process.wait()
        reader.join(1.0)


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """The command's environment: this Python first on the path, plain output, the simplest shell."""
    environment = dict(os.environ if given is None else given)
    environment["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    )
    environment["PYTHONUNBUFFERED"] = "1"
    environment["SHELL"] = "/bin/sh"  # not the user's shell, whose start-up files could affect a stage
    return environment


class _Transcript:
    """Reads from dvc's output what happened; dvc reports it nowhere else."""

    def __init__(self, name: str) -> None:
        self._running = f"Running stage '{name}':"
        self._cached = f"Stage '{name}' is cached - skipping run"
        self._unchanged = f"Stage '{name}' didn't change, skipping"
        self._name = name
        self._outcome: Outcome | None = None
        self._own: list[str] = []
        self._traceback: str | None = None
        self._in_traceback = False
        self._dvc: str | None = None

    def add(self, line: str) -> None:
        line = line.rstrip()
        if line.startswith(self._running):
            self._outcome = "ran"
        elif line.startswith((self._cached, "Pulling data for")):
            self._outcome = self._outcome or "restored"
        elif line.startswith(self._unchanged):
            self._outcome = self._outcome or "unchanged"
        elif line.startswith("error: "):
            self._own = [line.removeprefix("error: ")]
            return
        elif line.startswith("ERROR: "):
            self._dvc = line.removeprefix("ERROR: ")
        elif line.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        elif self._in_traceback and re.match(r"[A-Za-z_][\w.]*(:|$)", line):
            self._traceback = line
            self._in_traceback = False
        elif self._own and line.startswith("  "):
            self._own.append(line)

    def outcome(self) -> Outcome:
        return self._outcome or "unchanged"

    def reason(self, code: int) -> str:
        """The stage's own error if it printed one, else its traceback's last line, else dvc's message."""
        text = "\n".join(self._own) or self._traceback or self._dvc or f"ended with code {code}"
        text = text.strip()
        group = self._name.partition("@")[0]
        for prefix in (f"{self._name}: ", f"{group}: "):
            text = text.removeprefix(prefix)
        if not self._own and (sentence := full_disk_text(text)):  # dvc's own, or a library's
            text = sentence
        return f"{self._name}: {text}"
