"""`docker`, as far as the documented commands use it, on Podman and podman-compose.

Podman before 4.6 can't wait for health, and podman-compose then starts what waits for others too early, so
`up` is done here: the services of the same file, in the order and under the conditions that it gives, by its
own health checks. Everything else is passed on.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.container.engine import open_engine
from tests.container.images import build_options

PATIENCE = 180.0  # seconds that a service has to become what others wait for
ENDED = ("exited 0", "stopped 0")


def main(words: Sequence[str]) -> int:
    """Runs one command of docker; returns its exit code."""
    if words[:1] == ("compose",):
        return compose(words[1:])
    if words[:1] == ("build",):
        return _call("podman", "build", *_builds(), *words[1:])
    return _call("podman", *words)


def compose(words: Sequence[str]) -> int:
    """`docker compose`; `up` needs `--detach --wait`, the way in which we document it."""
    front: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        front += [rest.pop(0), rest.pop(0)]
    if rest[:1] == ["up"]:
        return up(front, rest[1:])
    if rest[:1] in (["exec"], ["run"]) and "-T" not in rest and not sys.stdout.isatty():
        rest.insert(1, "-T")  # as Docker does by itself
    # One image after the other: they share their first layers.
    builds = ["--parallel=1", f"--podman-build-args={shlex.join(_builds())}"]
    return _call("podman-compose", *builds, *front, *rest)


def up(front: Sequence[str], words: Sequence[str]) -> int:
    """Builds if asked to, creates what is missing or changed, and starts it in order."""
    assert {"--detach", "--wait"} <= set(words), "start with --detach --wait"
    chosen = [word for word in words if not word.startswith("-")]
    services = _services(front)
    wanted = set(chosen or services)
    if "--build" in words:
        # Several services have the same image.
        built = [name for name in services if name in wanted and "build" in services[name]]
        builders = {services[name]["image"]: name for name in built}
        if code := compose([*front, "build", *builders.values()]):
            return code
    # Without --no-deps, Podman would tie the containers together and refuse to start or stop one alone.
    if code := _call("podman-compose", *front, "up", "--no-start", "--no-deps", *chosen):
        return code
    for name in _in_order(services):
        if name not in wanted:
            continue
        for other, condition in services[name].get("depends_on", {}).items():
            if not _reached(other, condition["condition"]):
                return 1
        if _state(name, "{{.State.Status}}") != "running":
            _call("podman", "start", container(name), quiet=True)
    checked = [name for name in wanted if "healthcheck" in services[name]]
    return 0 if all(_reached(name, "service_healthy") for name in checked) else 1


def container(service: str) -> str:
    """The name that podman-compose gives the only container of a service."""
    return f"erv_{service}_1"


def _services(front: Sequence[str]) -> dict[str, Any]:
    command = ["podman-compose", *front, "config"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    services: dict[str, Any] = yaml.safe_load(said)["services"]
    return services


def _in_order(services: dict[str, Any]) -> list[str]:
    """Every service after those that it waits for."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for other in services[name].get("depends_on", {}):
            add(other)
        if name not in ordered:
            ordered.append(name)

    for name in services:
        add(name)
    return ordered


def _reached(name: str, condition: str) -> bool:
    """Waits until a service is healthy, or has ended well."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if condition == "service_healthy":
            check = ["podman", "healthcheck", "run", container(name)]
            if subprocess.run(check, capture_output=True, check=False).returncode == 0:
                return True
        elif _state(name, "{{.State.Status}} {{.State.ExitCode}}") in ENDED:
            return True
        time.sleep(1)
    sys.stderr.write(f"service {name} did not become {condition} within {PATIENCE:.0f} s; its last lines:\n")
    _call("podman", "logs", "--tail=30", container(name))
    return False


def _state(name: str, what: str) -> str:
    command = ["podman", "inspect", f"--format={what}", container(name)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _builds() -> list[str]:
    return build_options(open_engine(Path(os.environ["ERV_CONTAINER_CACHE"])))


def _call(*command: str, quiet: bool = False) -> int:
    return subprocess.run(command, stdout=subprocess.DEVNULL if quiet else None, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(tuple(sys.argv[1:])))
