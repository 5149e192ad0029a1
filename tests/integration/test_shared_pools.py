"""Work pools of several clones on a real Prefect server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from erv.environment import Environment, child_environment
from tests.conftest import ROOT

pytestmark = pytest.mark.integration

# Another worker makes the pool between this one's look and its own request.
RACE = """
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from flows import shared_pools

look, made = SyncPrefectClient.read_work_pool, []

def late(client, name):
    if made:
        return look(client, name)
    made.append(name)
    shared_pools._pool(client, name, None, any_type=False)
    raise ObjectNotFound(None)

SyncPrefectClient.read_work_pool = late
raise SystemExit(shared_pools.main(["at-once"]))
"""


def test_two_workers_that_make_a_pool_at_once(stack: Environment) -> None:
    """The slower one ended with the server's answer that there is such a pool."""
    done = subprocess.run(
        [sys.executable, "-c", RACE],
        cwd=ROOT,
        env=child_environment(stack),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "at-once: 4\n"), done.stderr
