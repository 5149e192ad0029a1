"""A server with the compose stack on it, set up and driven by the commands of infra/README.md."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erv.environment import Environment, load_environment
from tests.container.docker import container
from tests.container.engine import Engine
from tests.e2e.workspace import BIN, Listener, clone
from tests.support.paths import ROOT

README = ROOT / "infra" / "README.md"
WORKSPACE, BACKUP = "/srv/erv/workspace", "/srv/erv/backup"  # as the page has them
# So that every server can restart in the middle of a run.
LONGER = {"grpo": {"max_steps": 80, "collapse_patience": None}}
UID = 1234  # nobody's in the image
# Healthy or not, all of them; the two that end are `buckets` and `mlflow-migrate`.
SERVICES = ("postgres", "redis", "s3", "mlflow", "prefect", "prefect-services", "worker")


def documented(heading: str) -> list[list[str]]:
    """The commands of each block of a chapter of infra/README.md; a continued line is one command."""
    chapter = re.split(rf"^## {re.escape(heading)}$", README.read_text(encoding="utf-8"), flags=re.M)[1]
    chapter = re.split(r"^## ", chapter, flags=re.M)[0]
    blocks = re.findall(r"```bash\n(.*?)```", chapter, re.S)
    return [[line for line in block.replace("\\\n", " ").splitlines() if line.strip()] for block in blocks]


@dataclass
class Server:
    """The machine: a checkout, the worker's clone and the addresses that are published.

    Attributes:
        folder: what /srv/erv is in the page.
        ports: by the name of their variable in `.env`.
    """

    engine: Engine
    folder: Path
    images: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def checkout(self) -> Path:
        """The clone of whoever runs the server."""
        return self.folder / "checkout" / "erv"

    @property
    def workspace(self) -> Path:
        """The clone of the worker."""
        return self.folder / "workspace"

    def prepare(self) -> None:
        """Commits the present working tree, with the settings of a tiny run, as what was cloned."""
        listener = Listener()
        workspace = clone(self.folder / "checkout", listener)
        listener.close()
        workspace.set_params(LONGER)
        workspace.run("git", "commit", "-q", "-am", "longer")

    def shell(self, command: str, *, check: bool = True, timeout: float = 1800) -> str:
        """Runs a command of the page on the server, in infra/compose; returns all that it printed.

        Raises:
            AssertionError: it failed, and `check` is set.
        """
        command = command.replace(WORKSPACE, str(self.workspace)).replace(BACKUP, str(self.folder / "backup"))
        where = self.checkout if command.startswith("git ") else self.checkout / "infra" / "compose"
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=where,
            env=self.engine.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        seconds = time.monotonic() - started
        print(f"$ {command}  [{done.returncode}, {seconds:.0f} s]\n{done.stdout[-3000:]}")
        said = f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}"
        assert not check or done.returncode == 0, said
        return done.stdout

    def compose(self, *words: str, check: bool = True) -> str:
        """`docker compose ...` on the server."""
        return self.shell(shlex.join(["docker", "compose", *words]), check=check)

    def fill_in(self) -> None:
        """Sets in `.env` what the page says, with free ports and the images of this machine."""
        file = self.checkout / "infra" / "compose" / ".env"
        for name in ("ERV_S3_PORT", "ERV_MLFLOW_PORT", "ERV_PREFECT_PORT"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.ports[name] = free.getsockname()[1]
        values = {
            "ERV_WORKSPACE": self.workspace,
            "ERV_UID": UID,
            "ERV_GID": UID,
            "ERV_WORKER_CPUS": 2,
            "ERV_WORKER_MEMORY": "8g",
            "ERV_PREFECT_UI_URL": f"http://127.0.0.1:{self.ports['ERV_PREFECT_PORT']}",
            **self.ports,
            **{f"{name.upper()}_IMAGE": image for name, image in self.images.items()},
        }
        text = file.read_text(encoding="utf-8")
        for name, value in values.items():
            text, found = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.M)
            assert found == 1, name
        file.write_text(text, encoding="utf-8")
        # What the worker's clone belongs to.
        for path in [self.workspace, *self.workspace.rglob("*")]:
            shutil.chown(path, UID, UID)

    def variables(self) -> dict[str, str]:
        """What `.env` says."""
        text = (self.checkout / "infra/compose/.env").read_text(encoding="utf-8")
        return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))

    def outside(self) -> Environment:
        """The servers as a colleague on this machine reaches them, with all keys."""
        given = self.variables()
        names = ("ERV_S3_ACCESS_KEY", "ERV_S3_SECRET_KEY", "ERV_MLFLOW_TOKEN", "ERV_PREFECT_UI_URL")
        process = {name: given[name] for name in names} | {
            "ERV_S3_ENDPOINT": f"http://127.0.0.1:{self.ports['ERV_S3_PORT']}",
            "ERV_S3_REGION": given["ERV_S3_REGION"],
            "ERV_MLFLOW_URI": f"http://127.0.0.1:{self.ports['ERV_MLFLOW_PORT']}",
            "ERV_PREFECT_API_URL": f"http://127.0.0.1:{self.ports['ERV_PREFECT_PORT']}/api",
            "ERV_PREFECT_AUTH_STRING": f"erv:{given['ERV_PREFECT_PASSWORD']}",
        }
        empty = self.folder / "outside"
        empty.mkdir(exist_ok=True)
        return load_environment(empty, process=process)

    def start_outside(self, *command: str) -> subprocess.Popen[str]:
        """Starts a command of a colleague, with the addresses and keys of Prefect alone."""
        here = self.outside()
        environment = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(self.folder / "outside"),
            "PREFECT_API_URL": str(here.prefect_api_url),
            "PREFECT_API_AUTH_STRING": f"erv:{self.variables()['ERV_PREFECT_PASSWORD']}",
        }
        return subprocess.Popen(
            command,
            cwd=self.folder / "outside",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def inside(self, service: str, script: str) -> subprocess.CompletedProcess[str]:
        """Runs a line of sh in a container."""
        command = ["podman", "exec", container(service), "sh", "-c", script]
        return subprocess.run(
            command, env=self.engine.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def state(self, service: str, what: str) -> str:
        """A field of what the engine says of a container, such as `{{.State.Pid}}`."""
        return self.engine.podman("inspect", f"--format={what}", container(service))

    def healthy(self, service: str) -> bool:
        """What the service's own check says now."""
        command = ["podman", "healthcheck", "run", container(service)]
        done = subprocess.run(command, env=self.engine.environment, capture_output=True, check=False)
        return done.returncode == 0


def blocks(heading: str) -> Sequence[Sequence[str]]:
    """As `documented`, without the comments at the ends of lines."""
    return [[re.sub(r"\s+# .*$", "", line) for line in block] for block in documented(heading)]
