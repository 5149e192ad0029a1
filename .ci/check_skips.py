"""Fails when a test was skipped that the allow-list does not name.

Command: `python .ci/check_skips.py JUNIT_XML ALLOW_LIST`. A line of the list is a prefix of
`classname::name`, followed by ` # ` and the reason.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(report: str, allow_list: str) -> int:
    """Returns 0 when every skipped test is allowed, 1 otherwise; prints one line per refused skip."""
    lines = Path(allow_list).read_text(encoding="utf-8").splitlines()
    allowed = tuple(line.split(" # ")[0].strip() for line in lines if line and not line.startswith("#"))
    # The report was written by the pytest run just before, on this machine.
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314
    skipped = [f"{c.get('classname')}::{c.get('name')}" for c in cases if c.find("skipped") is not None]
    refused = [name for name in skipped if not (allowed and name.startswith(allowed))]
    for name in refused:
        sys.stderr.write(f"error: {name} was skipped and is not in {allow_list}\n")
    if not cases:
        sys.stderr.write(f"error: {report} holds no test\n")
    return 1 if refused or not cases else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
