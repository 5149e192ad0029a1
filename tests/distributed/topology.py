"""A coordinator's clone and workers with clones and homes of their own, on one real stack.

The pipeline is small, but everything else is real: S3, Prefect and its workers, MLflow, DVC, git. Its stage
`tune` counts steps, writes checkpoints as the training stages do, and goes on from them.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from erv.environment import Environment, child_environment
from tests.container.snapshot import store
from tests.integration.prefect_api import ask
from tests.integration.proxy import Proxy
from tests.integration.scratch import Background, Scratch

PIPELINE = """
stages:
  first:
    cmd: python work.py --stage first --out first.txt
    deps: [work.py, control/first.txt]
    params: [seed]
    outs: [first.txt]
  tune:
    cmd: python work.py --stage tune --out trained
    deps: [work.py, first.txt, control/tune.txt]
    params: [seed, grpo.learning_rate]
    outs: [trained]
  last:
    cmd: python work.py --stage last --out last.txt
    deps: [work.py, trained]
    outs: [last.txt]
"""
# `control/tune.txt` says how many steps there are and how long one takes: "STEPS SECONDS"; then "hide FILE"
# starts a process in a session of its own and writes its id there, "big MB" writes an output of that size,
# and "fail" fails.
WORK = """
import logging, os, subprocess, sys, time
from pathlib import Path
from erv.checkpoints import ROOT, discard_unusable, keep_newest, latest_checkpoint, mark_complete
from erv.errors import TrainingError
from erv.stage import Option, run_stage

name = sys.argv[2]
logger = logging.getLogger("stages.work")

def tune(arguments, settings, run):
    steps, seconds, *more = Path("control/tune.txt").read_text().split()
    folder = ROOT / "tune" / f"key-{settings.seed}" / "one"
    discard_unusable(folder)
    newest = latest_checkpoint(folder)
    start = int(newest.name.rpartition("-")[2]) if newest else 0
    logger.info("starts at step %d, process %d", start, os.getpid())
    if "hide" in more:
        hidden = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(more[more.index("hide") + 1]).write_text(str(hidden.pid))
    for step in range(start + 1, int(steps) + 1):
        time.sleep(float(seconds))
        run.log_metrics({"loss": 1.0 / step}, step)
        logger.info("step %d", step)
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "state.txt").write_text(str(step))
        mark_complete(checkpoint)
        keep_newest(folder, 2)
    if "fail" in more:
        raise TrainingError("the loss is not finite; lower grpo.learning_rate")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "weights.txt").write_text(f"{steps} steps {settings.seed}\\n")
    if "big" in more:
        size = int(more[more.index("big") + 1])
        with (arguments.out / "big.bin").open("wb") as stream:
            for part in range(size):
                stream.write(bytes([part % 251]) * 1_000_000)

def main(arguments, settings, run):
    if name == "tune":
        return tune(arguments, settings, run)
    logger.info("begins")
    arguments.out.write_text(f"{name} {settings.seed}\\n")

run_stage(name, main, Option("stage"), Option("out", Path))
"""


class Clone(Scratch):
    """A clone with the small pipeline, committed."""

    def __init__(self, folder: Path, stack: Environment, bucket: str | None = None) -> None:
        super().__init__(folder, stack)
        if bucket is not None:
            self._use(bucket)
        (folder / "dvc.yaml").write_text(PIPELINE)
        (folder / "work.py").write_text(WORK)
        self.control("first", "0")
        self.control("tune", "3 0.2")
        ignored = ["/.erv/", "/first.txt", "/trained", "/last.txt", "__pycache__/"]
        (folder / ".gitignore").write_text("\n".join(ignored) + "\n")
        self.place("{tune: gpu}")
        self.commit()

    def _use(self, bucket: str) -> None:
        from erv.stack.dvc_remote import write_dvc_remote

        self.environment = dataclasses.replace(self.environment, dvc_bucket=bucket)
        lines = [f"{name}={value}" for name, value in self.environment.variables().items()]
        (self.folder / ".erv/stack.env").write_text("\n".join(lines) + "\n")
        write_dvc_remote(self.environment)

    def place(self, placement: str, **more: str) -> None:
        """Sets `machine.placement`, and other parameters of `machine`."""
        path = self.folder / "params.yaml"
        text = re.sub(r"\n  placement: \{[^}]*\}", f"\n  placement: {placement}", path.read_text())
        for name, value in more.items():
            text = re.sub(rf"\n  {name}: \S+", f"\n  {name}: {value}", text)
        path.write_text(text)

    def commit(self) -> str:
        """Commits everything; returns the id."""
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(self.folder)]
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "state"], check=True)
        return self.head()

    def head(self) -> str:
        """The id of the commit that is checked out."""
        git = ["git", "-C", str(self.folder), "rev-parse", "HEAD"]
        return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()

    def dvc(self, *arguments: str) -> str:
        return self.python("-m", "dvc", *arguments).stdout

    def prefect(self, *module: str) -> None:
        """Runs a module that talks to the stack's Prefect."""
        variables = child_environment(self.environment, self.variables())
        command = [sys.executable, "-m", *module]
        subprocess.run(command, cwd=self.folder, env=variables, check=True, capture_output=True)

    def objects(self) -> list[str]:
        """What is below `remote/` in the bucket."""
        from erv.storage.store import open_store

        bucket = self.environment.dvc_bucket
        return [info.key for info in open_store(self.environment).list(f"s3://{bucket}/remote")]

    def is_sending(self) -> bool:
        """Whether an object of several parts is on its way to the bucket."""
        bucket = self.environment.dvc_bucket
        return bool(store(self.environment).list_multipart_uploads(Bucket=bucket).get("Uploads"))

    def stored(self) -> dict[str, tuple[int, str | None]]:
        """All objects of the bucket, each with its size and the mark of its content."""
        from erv.storage.store import open_store

        found = open_store(self.environment).list(f"s3://{self.environment.dvc_bucket}")
        return {info.key: (info.size, info.etag) for info in found}


class Cable:
    """Through which one machine alone reaches the servers; it can be pulled.

    Attributes:
        environment: the servers, as that machine knows them.
    """

    def __init__(self, stack: Environment) -> None:
        addresses = [str(url) for url in (stack.s3_endpoint, stack.mlflow_uri, stack.prefect_ui_url)]
        s3, mlflow, prefect = self._proxies = [Proxy(url) for url in addresses]
        self.environment = dataclasses.replace(
            stack,
            s3_endpoint=s3.endpoint,
            mlflow_uri=mlflow.endpoint,
            prefect_ui_url=prefect.endpoint,
            prefect_api_url=f"{prefect.endpoint}/api",
        )

    @contextmanager
    def pulled(self) -> Iterator[None]:
        """Nothing passes until the end of the block."""
        with ExitStack() as all_of_them:
            for proxy in self._proxies:
                all_of_them.enter_context(proxy.silent())
            yield

    def close(self) -> None:
        """Takes no more connections."""
        for proxy in self._proxies:
            proxy.close()


class Worker:
    """`erv run --worker --pool gpu` in a clone of its own."""

    def __init__(
        self,
        folder: Path,
        stack: Environment,
        pool: str = "gpu",
        small_disk: str = "",
        in_background: bool = False,
        **variables: str,
    ) -> None:
        self.scratch = Scratch(folder, stack)
        self.home = folder / "worker home"
        if small_disk:
            self.scratch.executable = str(self._on_small_disk(small_disk))
        if in_background:
            self.scratch.executable = str(self._in_background())
        before = self.scratch.variables()
        given = {**before, "ERV_WORKER_HOME": str(self.home), **variables}
        self.scratch.variables = lambda: given  # type: ignore[method-assign]
        self.background: Background = self.scratch.start("run", "--worker", "--pool", pool)
        self.background.wait_for("started!", 120)

    def _on_small_disk(self, size: str) -> Path:
        """A Python that has a tmpfs as its home, which nobody else sees."""
        self.home.mkdir()
        namespace = "--mount" if os.geteuid() == 0 else "--user --map-root-user --mount"
        script = self.scratch.folder / "python"
        home, python = shlex.quote(str(self.home)), shlex.quote(sys.executable)
        mount = f"mount -t tmpfs -o size={size} tmpfs {home}"
        inside = shlex.quote(f'{mount} && exec {python} "$@"')
        script.write_text(f'#!/bin/sh\nexec unshare {namespace} sh -c {inside} sh "$@"\n')
        script.chmod(0o755)
        return script

    def _in_background(self) -> Path:
        """A Python as a script starts it by `&`: it doesn't hear SIGINT."""
        script = self.scratch.folder / "python"
        script.write_text(f'#!/bin/sh\ntrap "" INT\nexec {shlex.quote(sys.executable)} "$@"\n')
        script.chmod(0o755)
        return script

    def tree(self) -> list[psutil.Process]:
        """The worker's process and all below it."""
        try:
            worker = psutil.Process(self.background.process.pid)
            return [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def flow_processes(self) -> list[psutil.Process]:
        """The process of the flow run that it has."""
        return [p for p in self.tree() if "prefect.engine" in " ".join(_words(p))]

    def pushes(self) -> list[psutil.Process]:
        """The processes that store outputs."""
        return [p for p in self.tree() if {"dvc", "push"} <= set(_words(p))]

    def signal(self, signum: int) -> list[psutil.Process]:
        """Sends a signal to the worker and everything below it, and returns those processes."""
        tree = self.tree()
        for process in tree:
            try:
                process.send_signal(signum)
            except psutil.NoSuchProcess:
                continue
        return tree

    def end(self) -> None:
        for process in self.tree():
            try:
                process.send_signal(signal.SIGCONT)
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.background.end()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def runs_of_pool(stack: Environment, pool: str = "gpu") -> list[dict]:
    """The flow runs that a pool has had, the oldest first; some have never started."""
    found = ask(stack, "/flow_runs/filter", {"work_pools": {"name": {"any_": [pool]}}, "limit": 200})
    return sorted(found, key=lambda run: run["created"])


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs any more."""

    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(lives, processes))


def wait_until(condition, seconds: float, what: str) -> float:
    """Waits; returns how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"waited in vain for {what}"
        time.sleep(0.2)
    return time.monotonic() - started
