"""The images that the tests build on: Debian by debootstrap, and what stands for the images of a registry.

Packages come from where this machine's apt and pip get theirs. Builds see pip's settings as one mounted file,
so that none of them, nor a key in them, ends up in an image.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.container.engine import LIMITS, Engine

HERE = Path(__file__).resolve().parent / "images"
DEBIAN = "localhost/erv-test/debian:bookworm"
STAND_INS = {name: f"localhost/erv-test/{name}:bookworm" for name in ("python", "postgres", "redis")}
_CERTIFICATES = "/etc/erv-test-certificates.crt"


def prepare(engine: Engine) -> dict[str, str]:
    """Builds what is not there yet.

    Returns:
        An image for each of python, postgres and redis. `PYTHON_IMAGE`, `POSTGRES_IMAGE` and `REDIS_IMAGE` in
        the environment take precedence, for machines that can reach a registry.
    """
    chosen = {name: os.environ.get(f"{name.upper()}_IMAGE", "") for name in STAND_INS}
    for name, image in STAND_INS.items():
        if not chosen[name]:
            _debian(engine)
            base = f"--build-arg=DEBIAN_IMAGE={DEBIAN}"
            engine.podman("build", *build_options(engine), base, "-t", image, str(HERE / name), timeout=1200)
    return {name: chosen[name] or image for name, image in STAND_INS.items()}


def _debian(engine: Engine) -> None:
    """A minimal Debian 12, whose mirror is debootstrap's own unless `DEBIAN_MIRROR` names one."""
    if engine.podman("images", "--quiet", DEBIAN):
        return
    mirror = [found] if (found := os.environ.get("DEBIAN_MIRROR")) else []
    with tempfile.TemporaryDirectory(dir=engine.home, ignore_cleanup_errors=True) as folder:
        tree, archive = Path(folder) / "tree", Path(folder) / "tree.tar"
        engine.run("debootstrap", "--variant=minbase", "bookworm", str(tree), *mirror, timeout=1200)
        shutil.rmtree(tree / "var/cache/apt/archives", ignore_errors=True)
        engine.run("tar", "-C", str(tree), "-cf", str(archive), ".")
        engine.podman("import", "--quiet", str(archive), DEBIAN)


def build_options(engine: Engine) -> list[str]:
    """What a build needs to get packages the way this machine does."""
    settings = _pip_settings()
    folders = re.findall(r"(?:^|\s|file://)(/[^\s]+)", "\n".join(settings.values()))
    mounts = {_first_levels(folder): _first_levels(folder) for folder in folders if Path(folder).is_dir()}
    if certificates := settings.get("cert"):
        mounts[certificates], settings["cert"] = _CERTIFICATES, _CERTIFICATES
    if constraint := settings.get("constraint"):
        mounts[constraint] = constraint
    lines = [f"{name} = {' '.join(value.split())}" for name, value in settings.items()]
    mounts[str(_kept(engine, "pip.conf", ["[global]", *lines]))] = "/etc/pip.conf"
    mounts[str(_kept(engine, "apt.conf", _apt_settings()))] = "/etc/apt/apt.conf"
    return [
        "--network=host",
        *(f"--ulimit={name}={value}" for name, value in LIMITS.items()),
        *(f"--volume={here}:{there}:ro" for here, there in mounts.items()),
    ]


def _pip_settings() -> dict[str, str]:
    """This machine's settings of pip, by their plain names; those of the environment come last and win."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^(?:global|install|:env:)\.([\w-]+)=(.+)$", listed, re.M)
    environment = re.findall(r"^:env:\.([\w-]+)=(.+)$", listed, re.M)
    return {name: str(ast.literal_eval(value)) for name, value in [*found, *environment]}


def _apt_settings() -> list[str]:
    """How this machine's apt fetches: proxies and what it checks."""
    listed = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^Acquire::(?!Languages|Changelogs|IndexTargets|CompressionTypes).*$", listed, re.M)


def _kept(engine: Engine, name: str, lines: list[str]) -> Path:
    file = engine.home / name
    file.write_text("\n".join([*lines, ""]))
    file.chmod(0o600)
    return file


def _first_levels(folder: str) -> str:
    """`/opt/pypi/simple` → `/opt/pypi`: an index on disk names its files beside itself."""
    return str(Path(*Path(folder).parts[:3]))
