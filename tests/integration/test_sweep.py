"""Sweeps on real servers: trials in checkouts, one pruned, one failing, killed in the middle, and on again."""

from __future__ import annotations

from pathlib import Path

import pytest

from erv.environment import Environment
from tests.integration.sweeping import SweepClone, size_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_first(stack: Environment, tmp_path: Path) -> None:
    clone = SweepClone(tmp_path / "clone", stack)
    refused = clone.erv("sweep", "run", "one", "--over", "sft.batch_size=1:60", check=False)
    assert "first: not up to date" in refused.stderr, refused.stderr
    clone.erv("run", "first")
    done = clone.erv("sweep", "run", "one", "--over", "sft.batch_size=1:60", "--trials", "2", check=False)
    print(done.stdout, done.stderr)
    print(clone.erv("sweep", "table", "one").stdout)
    print(clone.attempts())
    assert done.returncode == 0
