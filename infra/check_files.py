"""Refuses files that must not be committed: secrets, private keys, large files.

Command: `python infra/check_files.py FILE...` (the hook in .pre-commit-config.yaml), or without files for
everything that git tracks. Standard library only. Put `not-a-secret` on a line that only looks like a secret.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 500_000  # data and models belong to DVC
# Reference vectors for tests: they belong to the commit that they were recorded for.
GOLDEN = "tests/golden/data"
MAX_GOLDEN_BYTES = 8_000_000
ALLOWED = "not-a-secret"

# Each pattern is written so that it does not match its own source.
PATTERNS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token": re.compile(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}"
        r"|sk-[A-Za-z0-9_-]{32,}|xox[baprs]-[\w-]{10,}|pnu_[A-Za-z0-9]{30,})"
    ),
    "a password in a URL": re.compile(r"\b\w+://[^\s:/@{}$<>\"']*:(?![$%{<*])[^\s:/@{}<>\"']{8,}@\w"),
    "a secret with a value": re.compile(
        r"(?i)\b\w*(?:password|secret_key|secret|api_key|access_token)\b[\"']?\s*[=:]\s*"
        r"[\"']?(?=[^\s\"']*\d)(?=[^\s\"']*[a-z])[A-Za-z0-9+/_-]{20,}"
    ),
}


def faults(path: Path) -> list[str]:
    """What is wrong with one file, one sentence each; empty when nothing is."""
    if not path.is_file() or path.is_symlink():
        return []  # deleted, or a submodule
    size = path.stat().st_size
    limit = MAX_GOLDEN_BYTES if path.as_posix().startswith(f"{GOLDEN}/") else MAX_BYTES
    if size > limit:
        return [f"{path}: {size} bytes, more than {limit}; put it under DVC"]
    content = path.read_bytes()
    if b"\0" in content:
        return []
    found = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if ALLOWED in line:
            continue
        # The line itself is not printed: logs are read by more people than files are.
        found += [f"{path}:{number}: looks like {what}" for what, p in PATTERNS.items() if p.search(line)]
    return found


def tracked() -> list[str]:
    """The files that git tracks, from the top of the repository."""
    output = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return [name for name in output.split("\0") if name]


def main(names: Iterable[str]) -> int:
    """Prints every fault; returns 1 when there is one."""
    found = [fault for name in names or tracked() for fault in faults(Path(name))]
    sys.stderr.writelines(f"{fault}\n" for fault in found)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
