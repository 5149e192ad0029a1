"""A container engine of the tests' own: Podman with its images, volumes and networks in one folder.

Nothing of this machine's other containers is seen or touched, so the stack may have the names that it has on
a server. The folder keeps the images for the next run: `ERV_CONTAINER_CACHE`, or `~/.cache/erv/containers`.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

# Debian names the packages as the programs.
PROGRAMS = ("podman", "runc", "debootstrap", "netavark", "aardvark-dns", "catatonit")
# Within this machine's own limits, or the runtime refuses to start a container: without rights to raise them,
# what it starts with may be below what a shell here has.
LIMITS = {
    name: "{0}:{0}".format(min(resource.getrlimit(kind)[1] % 2**63, most))
    for name, kind, most in (
        ("nofile", resource.RLIMIT_NOFILE, 65536),
        ("nproc", resource.RLIMIT_NPROC, 16384),
    )
}
_HELPERS = ("/usr/libexec/podman", "/usr/lib/podman", "/usr/local/libexec/podman", "/usr/local/lib/podman")

_CONTAINERS = """\
[containers]
default_ulimits = [{limits}]

[engine]
cgroup_manager = "cgroupfs"
# Here and not in the environment: what restarts a container that died is no child of ours. Podman would have
# systemd run the health checks, which is not everywhere; who waits for a service runs its check.
env = ["DISABLE_HC_SYSTEMD=true"]
events_logger = "file"
runtime = "runc"
tmp_dir = "{home}/run/libpod"
volume_path = "{home}/volumes"

[network]
network_backend = "netavark"
network_config_dir = "{home}/networks"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{home}/storage"
runroot = "{home}/run/storage"
"""
# Read-only as with Docker, without the writable /run and /var/tmp that Podman adds.
_PODMAN = """\
#!/bin/sh
case "$1" in
  create | run) command="$1"; shift; exec {podman} "$command" --read-only-tmpfs=false "$@" ;;
esac
exec {podman} "$@"
"""
_DOCKER = """\
#!/bin/sh
exec {python} -m tests.container.docker "$@"
"""


def cache_folder() -> Path:
    """Where images and downloads of these tests stay."""
    named = os.environ.get("ERV_CONTAINER_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "erv" / "containers"


def missing() -> list[str]:
    """What this machine lacks, as words for "needs ..."; empty if the tests can run."""
    lacks = [] if os.geteuid() == 0 else ["root (debootstrap and networks of containers need it)"]
    programs = [name for name in PROGRAMS if not _found(name)]
    if programs:
        lacks.append(f"{', '.join(programs)} (apt-get install {' '.join(programs)})")
    if not (Path(sys.executable).parent / "podman-compose").exists():
        lacks.append("podman-compose (make install)")
    return lacks


def _found(program: str) -> str | None:
    """Where a program is, Podman's own folders included."""
    ours = str(cache_folder() / "bin")
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder != ours]
    return shutil.which(program, path=os.pathsep.join([*folders, *_HELPERS, "/usr/sbin", "/usr/bin"]))


@dataclass(frozen=True)
class Engine:
    """The engine.

    Attributes:
        home: its folder.
        environment: the variables with which `docker`, `podman` and `podman-compose` mean it.
    """

    home: Path
    environment: dict[str, str]

    def podman(self, *words: str, check: bool = True, timeout: float = 600) -> str:
        """Runs podman and returns what it printed.

        Raises:
            RuntimeError: it failed, and `check` is set.
        """
        return self.run("podman", *words, check=check, timeout=timeout)

    def run(self, *words: str, check: bool = True, timeout: float = 600, cwd: Path = ROOT) -> str:
        """Runs a command with the engine's variables and returns its stdout, without the last line's end.

        Raises:
            RuntimeError: it failed, and `check` is set.
        """
        done = subprocess.run(
            words,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr)[-4000:]
            raise RuntimeError(f"`{' '.join(words)}` ended with {done.returncode}:\n{said}")
        return done.stdout.rstrip("\n")

    def clear(self) -> None:
        """Removes containers, volumes and networks; images stay for the next run."""
        self.podman("rm", "--all", "--force", "--volumes", "--time=5", check=False)
        self.podman("volume", "rm", "--all", "--force", check=False)
        self.podman("network", "prune", "--force", check=False)


def open_engine(home: Path | None = None) -> Engine:
    """Writes the engine's settings into its folder, and a `docker` that means it."""
    home = (home or cache_folder()).resolve()
    programs = home / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    limits = ", ".join(f'"{name}={value}"' for name, value in LIMITS.items())
    (home / "containers.conf").write_text(_CONTAINERS.format(home=home, limits=limits))
    (home / "storage.conf").write_text(_STORAGE.format(home=home))
    scripts = {
        "docker": _DOCKER.format(python=sys.executable),
        "podman": _PODMAN.format(podman=_found("podman")),
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    path = [str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"]
    environment = {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        "HOME": str(Path.home()),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        "CONTAINERS_CONF": str(home / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(home / "storage.conf"),
        "ERV_CONTAINER_CACHE": str(home),
    }
    return Engine(home, environment)
