"""A small pipeline of real stages in a folder of its own, run by the real flow on the real stack."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from erv.environment import Environment
from erv.storage.store import open_store
from erv.tracking.lock_entries import client_of
from tests.conftest import ROOT

PIPELINE = """
stages:
  make:
    matrix: {name: [a, b]}
    cmd: python work.py --stage make --name ${item.name} --out made/${item.name}.txt
    deps: [work.py, control/make.txt]
    params: [seed]
    outs: ["made/${item.name}.txt"]
  join:
    cmd: python work.py --stage join --out joined.txt
    deps: [work.py, made, control/join.txt]
    params: [seed]
    outs: [joined.txt]
  last:
    cmd: python work.py --stage last --out last.txt
    deps: [work.py, joined.txt]
    outs: [last.txt]
"""
# Control files say how long a stage takes and whether it fails: "SECONDS", "SECONDS fail" or, for one of a
# matrix, "SECONDS fail:NAME". With "slow" it takes four seconds to end when it is stopped.
WORK = """
import logging, sys, time
from pathlib import Path
from erv.errors import TrainingError
from erv.stage import Option, run_stage

name = sys.argv[2]

def main(arguments, settings, run):
    control = Path("control") / f"{name}.txt"
    words = control.read_text().split() if control.exists() else ["0"]
    logging.getLogger("stages.work").info("begins")
    end = time.monotonic() + float(words[0])
    try:
        while time.monotonic() < end:
            time.sleep(0.05)
    except BaseException:
        time.sleep(4.0 if "slow" in words else 0.0)
        raise
    if name == "join":
        run.log_text("<p>42 clips are valid</p>", "data_docs/scratch.html")
        run.set_tags({"erv.validate.data_docs": "data_docs/scratch.html"})
    if {"fail", f"fail:{sys.argv[4]}"} & set(words):
        raise TrainingError("clip 7 of the scratch set is broken; take another one")
    run.log_metrics({"work": 1.0})
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(f"{name} {' '.join(words)} {settings.seed}\\n")

options = [Option("stage"), Option("out", Path)] + ([Option("name")] if name == "make" else [])
run_stage(name, main, *options)
"""


class Scratch:
    """The folder, with commands to run in it."""

    executable = sys.executable

    def __init__(self, folder: Path, stack: Environment) -> None:
        self.folder = folder
        # A bucket of its own: the run cache of another folder would restore what is to run here.
        self.environment = dataclasses.replace(
            stack, workspace=folder, mlflow_experiment=folder.name, dvc_bucket=f"erv-dvc-{folder.name}"
        )
        open_store(self.environment).ensure_bucket(self.environment.dvc_bucket)
        for name, text in {"dvc.yaml": PIPELINE, "work.py": WORK}.items():
            (folder / name).write_text(text)
        shutil.copy(ROOT / "params.yaml", folder)
        for name in ("src", "flows"):  # a flow refuses the code of another folder
            (folder / name).symlink_to(ROOT / name)
        self.control("make", "0")
        self.control("join", "0")
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
        self.python("-m", "dvc", "init", "-q")
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
        (folder / ".erv").mkdir()
        lines = [f"{name}={value}" for name, value in self.environment.variables().items()]
        (folder / ".erv/stack.env").write_text("\n".join(lines) + "\n")
        from erv.stack.dvc_remote import write_dvc_remote

        write_dvc_remote(self.environment)

    def control(self, stage: str, text: str) -> None:
        (self.folder / "control").mkdir(exist_ok=True)
        (self.folder / "control" / f"{stage}.txt").write_text(text)

    def variables(self) -> dict[str, str]:
        # `python` of a stage's command is ours, as in an activated environment.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        }

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [self.executable, *arguments],
            cwd=self.folder,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def erv(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.python("-c", "from erv.cli import main; main()", *arguments, check=check)

    def start(self, *arguments: str) -> Background:
        return Background(self, arguments)

    def runs(self) -> dict[str, list]:
        """The MLflow runs of this folder by name, the newest first; those of the flow are `train`."""
        client = client_of(self.environment)
        experiment = client.get_experiment_by_name(self.environment.mlflow_experiment)
        found: dict[str, list] = {}
        for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]):
            name = "train" if run.data.tags.get("erv.stage") == "train" else run.info.run_name
            found.setdefault(name, []).append(run)
        return found

    def processes(self) -> list[psutil.Process]:
        """What still runs in this folder, as seen from its working directory."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


class Background:
    """`erv ...` in the background; its output goes to a file."""

    def __init__(self, scratch: Scratch, arguments: tuple[str, ...]) -> None:
        self.log = scratch.folder / ".erv" / f"log-{time.monotonic_ns()}"
        self._stream = self.log.open("w")
        self.process = subprocess.Popen(
            [scratch.executable, "-c", "from erv.cli import main; main()", *arguments],
            cwd=scratch.folder,
            env=scratch.variables(),
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A runner in the background may have SIGINT ignored; a terminal has not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def text(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, f"waited in vain for {text!r} in\n{self.text()}"
            time.sleep(0.1)

    def flow_run_id(self) -> str:
        match = re.search(r"runs/flow-run/([0-9a-f-]{36})", self.text())
        assert match, self.text()
        return match.group(1)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)
        self._stream.close()


def seen_free(
    lock: Path, note: Path, left: Callable[[], Sequence[object]], seconds: float = 60.0
) -> list[str]:
    """Waits until a lock is free, and says what is not as it should be then.

    Args:
        lock: a file that a flow holds.
        note: what it keeps beside it as long as it holds the lock.
        left: what still runs of the flow's stages.
        seconds: how long to wait at most.

    Returns:
        A sentence each for what was there too long, and for what had gone too early.
    """
    deadline = time.monotonic() + seconds
    with lock.open("rb") as stream:
        while True:
            noted = note.exists()
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not noted and (running := left()):
                    return [f"{note.name} had gone before {running}"]
                assert time.monotonic() < deadline, "the lock is still held"
                time.sleep(0.02)
                continue
            fcntl.flock(stream, fcntl.LOCK_UN)
            return [f"{lock.name} was free before the end of {one}" for one in left()]


def wait_until(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
