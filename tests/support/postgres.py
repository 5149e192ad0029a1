"""A real PostgreSQL server on 127.0.0.1, in a folder that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PASSWORD = "not-a-secret"  # of a server that lives for a test


@dataclass(frozen=True)
class Postgres:
    """A server.

    Attributes:
        url: of an empty database.
        folder: its data.
        programs: where PostgreSQL's programs are.
    """

    url: str
    folder: Path
    programs: Path

    def restart(self) -> None:
        """Stops it as a power failure would, and starts it again."""
        _run([self.programs / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop"])
        _run([self.programs / "pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", "start"])


def programs() -> Path:
    """The folder of initdb and pg_ctl, which Debian keeps out of PATH.

    Raises:
        RuntimeError: PostgreSQL is not installed.
    """
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise RuntimeError("PostgreSQL's initdb and pg_ctl were not found; `apt-get install postgresql` has them")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Starts a server and stops it at the end."""
    where = programs()
    folder = Path(tempfile.mkdtemp(prefix="erv-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")  # PostgreSQL refuses to run as root
        secret = folder / "password"
        secret.write_text(_PASSWORD)
        secret.chmod(0o644)
        data = folder / "data"
        _run(
            [
                where / "initdb",
                "-D",
                data,
                "-U",
                "erv",
                "-A",
                "scram-sha-256",
                f"--pwfile={secret}",
                "-E",
                "UTF8",
            ]
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{folder}'\n"
            )
        _run([where / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "start"])
        try:
            yield Postgres(f"postgresql://erv:{_PASSWORD}@127.0.0.1:{port}/postgres", folder, where)
        finally:
            _run([where / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str | Path]) -> None:
    user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=120,
        check=False,
        **user,
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {done.stderr or done.stdout}")
