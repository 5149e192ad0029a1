"""A workspace with a finished run of the tiny pipeline: the reference against which each fault is judged."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import yaml

from erv.environment import Environment, load_environment
from tests.chaos.ledger import Ledger
from tests.e2e.workspace import Listener, Workspace, clone

# Shorter than the end-to-end test: what counts here is each stage's life, not its result.
TINIER = {
    "machine": {"sft": {"save_steps": 4}, "grpo": {"save_steps": 1}},
    "sft": {"max_steps": 24},
    "train_erv": {"max_steps": 30, "eval_steps": 10, "patience": None},
    "grpo": {"max_steps": 4},
}
OUTPUTS = ("data", "models", "eval", "report")
_GONE_SECONDS = 25.0
_COMMAND_SECONDS = 420.0
_REFERENCE_SECONDS = 1800.0
# A message that says what happened: ours, DVC's own, or Click's about a wrong use.
_SENTENCE = re.compile(r"^(error: |ERROR: |Error: )\S", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code (negative for a signal) and its output."""

    code: int
    text: str

    @property
    def clear(self) -> bool:
        """Whether a failure is explained by a sentence and not by a call stack."""
        return bool(_SENTENCE.search(self.text)) and "Traceback (most recent call last)" not in self.text


class Started:
    """A command in the background, in a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def text(self) -> str:
        """Its output so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def saw(self, text: str, seconds: float) -> bool:
        """Waits for a text in the output; False if the command ends or the time is over without it."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            if self.process.poll() is not None:
                return text in self.text()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def family(self) -> list[psutil.Process]:
        """The process and everything below it."""
        try:
            leader = psutil.Process(self.process.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def ended(self, seconds: float = _COMMAND_SECONDS) -> Ended:
        """Waits for the end; a command that hangs is killed, with code 124."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            code = 124
        return Ended(code, self.text())


class Place:
    """The workspace, its reference and the commands of the trials.

    Args:
        folder: an empty folder for everything.
        ledger: where runs and damage are counted.
        seed: of all random choices.
    """

    def __init__(self, folder: Path, ledger: Ledger, seed: int) -> None:
        self.ledger, self.random = ledger, random.Random(seed)
        self.scene = ""
        self._folder = folder
        self._listener = Listener()
        self.workspace: Workspace = clone(folder, self._listener)
        self.path = self.workspace.path
        self.workspace.set_params(TINIER)
        self.seconds: dict[str, float] = {}
        self.outs: dict[str, str] = {}
        self.content: dict[str, str] = {}

    def make_reference(self) -> None:
        """Starts the stack, runs the pipeline once without faults and keeps what it made."""
        for words in (
            ("stack", "up"),
            ("sample-data", "--size", "tiny", "--upload"),
            ("data", "pin"),
            ("run",),
        ):
            ended = self.start("erv", *words).ended(_REFERENCE_SECONDS)
            if ended.code != 0:
                raise RuntimeError(f"erv {' '.join(words)} fails without any fault:\n{ended.text[-4000:]}")
        for name, minutes, seconds in re.findall(
            r"^(\S+)\s+ran\s+(?:(\d+) min )?([\d.]+) s", ended.text, re.MULTILINE
        ):
            self.seconds[name] = 60 * float(minutes or 0) + float(seconds)
        self.outs = self.lock_outs()
        self.content = self.contents()
        kept = self._folder / "kept"
        kept.mkdir()
        for name in (*OUTPUTS, ".dvc/cache", "dvc.lock", "params.yaml"):
            self._copy(self.path / name, kept / name)

    @property
    def environment(self) -> Environment:
        """The servers of this workspace."""
        return load_environment(self.path, process={})

    def close(self) -> None:
        """Stops the servers."""
        self.erv("stack", "down")
        self._listener.close()

    def start(
        self, *command: str, extra: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Started:
        """Starts a command of this workspace in the background."""
        if self.scene:
            self.ledger.add(self.scene, "runs")
        log = self._folder / f"log-{time.monotonic_ns()}"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                cwd=cwd or self.path,
                env={**self.workspace.environment, "OMP_NUM_THREADS": "1", **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Started(process, log)

    def erv(self, *words: str, extra: Mapping[str, str] | None = None) -> Ended:
        """Runs `erv ...` to its end."""
        return self.start("erv", *words, extra=extra).ended()

    def start_stage(
        self, name: str, *, force: bool = True, extra: Mapping[str, str] | None = None
    ) -> Started:
        """Starts one stage as the flow does: `dvc repro -s` below the guard."""
        flags = ["--force"] if force else []
        return self.start(sys.executable, "-m", "tests.chaos.one_stage", name, *flags, extra=extra)

    def stage(self, name: str, *, force: bool = True, extra: Mapping[str, str] | None = None) -> Ended:
        """Runs one stage to its end."""
        return self.start_stage(name, force=force, extra=extra).ended()

    def allow(self, ended: Ended, what: str) -> bool:
        """Judges a command that met a fault: success and clear errors are allowed; True if it succeeded."""
        if ended.code != 0 and not ended.clear:
            last = " / ".join(ended.text.strip().splitlines()[-3:])
            self.ledger.damage(self.scene, "unclear", f"{what}: code {ended.code}: {last[-400:]}")
        return ended.code == 0

    def require(self, ended: Ended, what: str) -> None:
        """Judges a command after the fault is over: it must succeed."""
        if ended.code != 0:
            last = " / ".join(ended.text.strip().splitlines()[-4:])
            self.ledger.damage(self.scene, "lost", f"{what}: does not recover: {last[-500:]}")

    def nothing_runs(self, what: str) -> None:
        """Counts processes of the pipeline that outlive it, and ends them."""
        deadline = time.monotonic() + _GONE_SECONDS
        while (left := self.workspace.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            self.ledger.damage(self.scene, "duplicated", f"{what}: still runs: {process.cmdline()[:6]}")
            process.kill()

    def check(self, what: str) -> None:
        """Compares lock entries and the bytes of all outputs with the reference; repairs what differs."""
        faults = 0
        try:
            outs = self.lock_outs()
        except (ValueError, OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            outs = {}
            self.ledger.damage(self.scene, "lost", f"{what}: dvc.lock can't be read: {error}")
            faults += 1
        contents = self.contents()
        if outs and (missing := sorted(self.outs.keys() - outs.keys())):
            self.ledger.damage(self.scene, "lost", f"{what}: not in dvc.lock: {', '.join(missing[:5])}")
            faults += 1
        if gone := sorted(self.content.keys() - contents.keys()):
            self.ledger.damage(self.scene, "lost", f"{what}: not there: {', '.join(gone[:5])}")
            faults += 1
        changed = [name for name in self.outs.keys() & outs.keys() if self.outs[name] != outs[name]]
        changed += [n for n in self.content.keys() & contents.keys() if self.content[n] != contents[n]]
        if changed:
            self.ledger.damage(self.scene, "silently wrong", f"{what}: differs: {', '.join(changed[:5])}")
            faults += 1
        if faults:
            self.repair()

    def repair(self) -> None:
        """Puts outputs, cache and lock back as they were in the reference."""
        for name in (*OUTPUTS, ".dvc/cache", "dvc.lock", "params.yaml"):
            self._copy(self._folder / "kept" / name, self.path / name)

    def lock_outs(self) -> dict[str, str]:
        """Path -> md5 of every output that dvc.lock names."""
        return {
            out["path"]: out["md5"]
            for stage in self.workspace.lock().values()
            for out in stage.get("outs", ())
        }

    def contents(self) -> dict[str, str]:
        """Path -> sha256 of every file of the outputs in the reference, read from disk."""
        found = {}
        for out in sorted(self.outs or self.lock_outs()):
            path = self.path / out
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    name = file.relative_to(self.path).as_posix()
                    found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        if target.is_dir() and not target.is_symlink():
            for path in [target, *target.rglob("*")]:
                if path.is_dir():
                    path.chmod(0o755)
            shutil.rmtree(target)
        elif target.exists():
            target.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        elif source.exists():
            shutil.copy2(source, target)


def flip_a_bit(path: Path, chance: random.Random) -> None:
    """Changes one bit in the middle of a file; its size and times stay."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    position = chance.randrange(len(data) // 4, max(len(data) // 4 + 1, 3 * len(data) // 4))
    data[position] ^= 1 << chance.randrange(8)
    mode = before.st_mode
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.write(data)
    path.chmod(mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def words_of(process: psutil.Process) -> Sequence[str]:
    """The command line of a process; empty if it has ended."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ()
