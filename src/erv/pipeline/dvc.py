"""The DVC pipeline: its graph, one stage of it at a time, and what came of it. Knows nothing of Prefect.

`dvc.yaml` is the only description of the graph and DVC the only cache. A stage runs as `dvc repro -s` below
`erv.pipeline.guard`, in a process of its own, so that independent stages can run side by side: `dvc` gives
up the repository's lock while a command runs and waits for it afterwards.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from erv.errors import ErvError

Outcome = Literal["ran", "restored", "unchanged"]

LOCK_FILE = Path(".erv/pipeline.lock")
# Advice of dvc for someone at a terminal; in the log of a flow it only hides the stage's own lines.
_ADVICE = (
    "To track the changes with git, run:",
    "\tgit add ",
    "To enable auto staging, run:",
    "\tdvc config core.autostage",
    "Use `dvc push` to send",
)
_POLL_SECONDS = 0.1
_STOP_SECONDS = 20.0


class PipelineError(ErvError):
    """The pipeline can't be read or run."""


class StageFailedError(PipelineError):
    """A stage failed; the message is the stage's own."""


class StageCancelledError(PipelineError):
    """A stage was stopped because its caller asked for it; nothing of it runs any more."""

    exit_code = 130


@dataclass(frozen=True)
class PipelineStage:
    """A stage of `dvc.yaml` after its matrix was expanded.

    Attributes:
        name: as DVC addresses it, such as `grpo@erv`.
        upstream: names of the stages whose outputs it reads, sorted.
        command: the command that DVC runs.
        dependencies: workspace paths of files and folders that it reads, sorted.
        outputs: workspace paths that it writes, sorted.
        parameters: parameters, or sections of them, that it depends on, sorted.
    """

    name: str
    upstream: tuple[str, ...]
    command: str
    dependencies: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The name in `dvc.yaml`: `grpo` for `grpo@erv`."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class StageResult:
    """What `run_stage` did, and how long it took in seconds of wall time."""

    name: str
    outcome: Outcome
    seconds: float


def read_stages(workspace: str | Path = ".") -> tuple[PipelineStage, ...]:
    """The stages of the workspace's `dvc.yaml`, each after all that it depends on; ties by name.

    Raises:
        PipelineError: no DVC repository, or a `dvc.yaml` that DVC refuses.
    """
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    root = Path(workspace).resolve()
    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            found = {
                stage.name: PipelineStage(
                    name=stage.name,
                    upstream=tuple(sorted(up.name for up in graph.successors(stage))),
                    command=str(stage.cmd),
                    dependencies=tuple(sorted({_relative(dep, root) for dep in stage.deps if dep.fs_path})),
                    outputs=tuple(sorted(_relative(out, root) for out in stage.outs)),
                    parameters=tuple(
                        sorted(
                            name
                            for dep in stage.deps
                            if isinstance(dep, ParamsDependency)
                            for name in dep.params
                        )
                    ),
                )
                for stage in graph.nodes
            }
    except DvcException as error:
        raise PipelineError(f"dvc.yaml: {_one_line(str(error))}") from error
    if not found:
        raise PipelineError(f"{root / 'dvc.yaml'}: no stages found; run this from the top of the repository")
    return tuple(_sorted(found))


def select(stages: Sequence[PipelineStage], targets: Iterable[str] | None) -> tuple[PipelineStage, ...]:
    """The stages named by `targets` and all that they need, in the order of `stages`.

    Args:
        stages: from `read_stages`.
        targets: full names (`grpo@erv`) or groups (`grpo`); None or nothing means every stage.

    Raises:
        PipelineError: a target names no stage.
    """
    wanted = list(targets or ())
    if not wanted:
        return tuple(stages)
    by_name = {stage.name: stage for stage in stages}
    pending: list[str] = []
    for target in wanted:
        matches = [stage.name for stage in stages if target in (stage.name, stage.group)]
        if not matches:
            raise PipelineError(f"no stage {target!r} in dvc.yaml, expected one of {', '.join(by_name)}")
        pending.extend(matches)
    needed: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending.extend(by_name[name].upstream)
    return tuple(stage for stage in stages if stage.name in needed)


def read_lock(path: str | Path = "dvc.lock") -> dict[str, dict[str, Any]]:
    """The entries of `dvc.lock` by stage name; nothing when no stage has ever run."""
    import yaml

    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except yaml.YAMLError as error:
        raise PipelineError(
            f"{path}: not valid YAML ({_one_line(str(error))}); restore it from git, or delete it and"
            " run the pipeline again"
        ) from error
    return dict((raw or {}).get("stages") or {})


@contextmanager
def workspace_lock(path: str | Path = LOCK_FILE) -> Iterator[None]:
    """Holds the workspace for one pipeline; the kernel frees it when the holder dies, whatever the way.

    Raises:
        PipelineError: another pipeline runs here.
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


def run_stage(
    name: str,
    *,
    on_line: Callable[[str], None] = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
    pull: bool = False,
    force: bool = False,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> StageResult:
    """Brings one stage up to date: runs it, restores its outputs from the cache, or finds nothing to do.

    Args:
        name: as in `read_stages`; what it depends on must be up to date.
        on_line: called in this thread with each line of output, as it comes.
        cancelled: asked several times a second; when it says yes, all that the stage started is stopped.
        pull: also look for outputs and earlier runs in the remote, which must be reachable.
        force: run even if nothing changed.
        environment: the environment of the command; that of this process by default.
        workspace: the top of the repository.

    Raises:
        StageFailedError: with the stage's own last error.
        StageCancelledError: `cancelled` said yes; nothing of the stage runs any more.
    """
    flags = [*(["--pull"] if pull else []), *(["--force"] if force else [])]
    command = dvc_command("repro", "--single-item", *flags, name)
    started = time.monotonic()
    seen = _Transcript(name)

    def note(line: str) -> None:
        seen.add(line)
        if not line.startswith(_ADVICE):
            on_line(line)

    code = run_guarded(
        command, what=name, on_line=note, cancelled=cancelled, environment=environment, workspace=workspace
    )
    if code != 0:
        raise StageFailedError(seen.reason(code))
    return StageResult(name, seen.outcome(), time.monotonic() - started)


def push(
    *,
    on_line: Callable[[str], None] = lambda _line: None,
    cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> None:
    """Stores every output of the current `dvc.lock`, and the run cache, in the remote."""
    seen = _Transcript("push")

    def note(line: str) -> None:
        seen.add(line)
        on_line(line)

    code = run_guarded(
        dvc_command("push", "--run-cache"),
        what="dvc push",
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
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> int:
    """Runs `command` below `erv.pipeline.guard`, handing over its output line by line; returns its exit code.

    Raises:
        StageCancelledError: `cancelled` said yes.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "erv.pipeline.guard", "--", *command],
        stdin=subprocess.PIPE,  # held open: the guard stops everything when it closes
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
    environment["SHELL"] = "/bin/sh"  # dvc takes the user's; its start files are no part of a stage
    return environment


class _Transcript:
    """Reads from dvc's output what happened; dvc has no other way of telling."""

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
        """The stage's own error if it told one, else its traceback's last line, else what dvc says."""
        text = "\n".join(self._own) or self._traceback or self._dvc or f"ended with code {code}"
        text = text.strip()
        group = self._name.partition("@")[0]
        for prefix in (f"{self._name}: ", f"{group}: "):
            text = text.removeprefix(prefix)
        return f"{self._name}: {text}"


def _sorted(found: dict[str, PipelineStage]) -> Iterator[PipelineStage]:
    done: set[str] = set()
    while len(done) < len(found):
        ready = sorted(n for n, s in found.items() if n not in done and done.issuperset(s.upstream))
        for name in ready:
            yield found[name]
        done.update(ready)


def _relative(item: Any, root: Path) -> str:
    path = Path(item.fs_path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _one_line(text: str) -> str:
    return " ".join(text.split())
