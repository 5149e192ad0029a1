"""A disk that is really full: a small tmpfs in a mount namespace of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path


def on_small_disk(
    folder: Path, kilobytes: int, *arguments: str, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python with a tmpfs of some size on a folder, and lists what it left there.

    Works for root and, where the kernel allows user namespaces, for any user; elsewhere the command fails and
    says so. The mount is gone when the command ends.

    Args:
        folder: where the small disk is mounted; created if missing.
        kilobytes: its size.
        *arguments: of Python.
        cwd: where it runs.
        **variables: added to the environment.

    Returns:
        The finished process; its output ends with `left:` and a line per file on the small disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = shlex.quote(str(folder))
    script = (
        f"mount -t tmpfs -o size={kilobytes}k tmpfs {where} || exit 99; "
        f"{shlex.join([sys.executable, *arguments])}; code=$?; "
        f"echo left:; find {where} -type f; exit $code"
    )
    namespace = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    result = subprocess.run(
        ["unshare", *namespace, "sh", "-c", script],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode != 99, result.stderr
    assert "unshare:" not in result.stderr, result.stderr
    return result


def left(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The files that were left on the small disk."""
    return result.stdout.partition("left:\n")[2].splitlines()
