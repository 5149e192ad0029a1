"""A fresh clone of the working tree with a stack of its own, driven through the command line."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from erv.libraries import running_python
from tests.support.paths import ROOT

REPOSITORY = ROOT
BIN = Path(sys.executable).parent

# So that tests which kill a stage find a checkpoint.
OFTEN = {"machine": {"sft": {"save_steps": 20}, "grpo": {"save_steps": 2}}}


class Listener:
    """A TCP server that stands for what the user's own environment points at; counts who knocks."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@dataclass
class Workspace:
    """A clone, its environment and the means to run commands in it."""

    path: Path
    environment: dict[str, str]
    log: list[str] = field(default_factory=list)

    def run(
        self, *command: str, check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; a failure shows its whole output."""
        started = time.monotonic()
        result = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        seconds = time.monotonic() - started
        print(f"$ {' '.join(command)}  [{result.returncode}, {seconds:.1f} s]\n{result.stdout}")
        if check and result.returncode != 0:
            raise AssertionError(
                f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout[-6000:]}"
            )
        return result

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own, its output in a file."""
        log = self.path.parent / f"{command[0].replace('/', '_')}-{time.monotonic_ns()}.log"
        self.log.append(str(log))
        with log.open("w") as stream:
            return subprocess.Popen(
                command,
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def set_params(self, changes: dict[str, object]) -> None:
        """Merges `changes` into the workspace's params.yaml."""
        path = self.path / "params.yaml"
        params = yaml.safe_load(path.read_text())
        _merge(params, changes)
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def lock(self) -> dict[str, dict]:
        """The stages of dvc.lock."""
        return yaml.safe_load((self.path / "dvc.lock").read_text())["stages"]

    def processes(self) -> list[psutil.Process]:
        """Pipeline processes of this workspace: flow, guard, dvc, stages; not the servers of the stack."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            words = " ".join(process.info["cmdline"] or ())
            inside = str(process.info["cwd"] or "").startswith(str(self.path))
            if inside and any(w in words for w in ("stages.", "erv.pipeline.guard", "dvc", "flows.run")):
                found.append(process)
        return found


def _merge(target: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def clone(folder: Path, foreign: Listener) -> Workspace:
    """Copies what git would clone of the working tree and commits it; the user's settings point elsewhere."""
    path = folder / "erv"
    path.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source = REPOSITORY / name
        # The big reference vectors are no part of the pipeline.
        if (
            source.is_file()
            and not name.startswith(("tests/golden/", "data/sources/"))
            and name != "dvc.lock"
        ):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, path / name)
    home = folder / "home"
    (home / ".aws").mkdir(parents=True)
    address = f"http://127.0.0.1:{foreign.port}"
    (home / ".aws" / "config").write_text(
        f"[profile somebody-else]\nendpoint_url = {address}\nregion = nowhere-1\n"
    )
    (home / ".aws" / "credentials").write_text(
        "[somebody-else]\naws_access_key_id = foreign\naws_secret_access_key = foreign\n"
    )
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(path / "src"),
        "HOME": str(home),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TERM": "dumb",
        "AWS_PROFILE": "somebody-else",
        "MLFLOW_TRACKING_URI": address,
        "PREFECT_API_URL": f"{address}/api",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
    }
    workspace = Workspace(path, environment)
    workspace.run("erv", "params", "use", "tiny")
    # Results are recorded with the Python that runs the tests, whichever of the three it is.
    workspace.set_params({**OFTEN, "runtime": {"python": running_python()}})
    workspace.run("git", "init", "-q", ".")
    workspace.run("git", "add", "-A")
    workspace.run("git", "commit", "-q", "-m", "clone")
    return workspace


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Ends what a test started, whatever state it is in."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
