"""Prints the exact versions of the present environment as a lock file that pip installs.

Command: `make lock`. The editable install of this repository and pip itself are left out. Local version
labels (`+cpu`) are dropped: an index that serves a build under its plain version refuses the labelled one.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions

LEFT_OUT = {"erv", "pip"}
# decord has wheels for x86-64 only; its fork offers the same module elsewhere (see pyproject.toml).
MARKERS = {"decord": '; platform_machine == "x86_64" or platform_machine == "AMD64"'}


def main() -> None:
    """Writes one `name==version` line per installed distribution, sorted by name."""
    versions = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version.split("+")[0]
        for dist in distributions()
    }
    lines = [
        f"{name}=={version}{MARKERS.get(name, '')}"
        for name, version in sorted(versions.items())
        if name not in LEFT_OUT
    ]
    sys.stdout.write("# Written by `make lock`; install with `make install` (torch first, CPU build).\n")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
