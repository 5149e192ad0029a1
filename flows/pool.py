"""Creates the work pool of this clone in Prefect, or puts the clone's folder into it: `python -m flows.pool`.

`erv run --deploy` and `erv run --worker` run it where `erv.stack.pools` finds none.
"""

from __future__ import annotations

import platform
import sys

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.process import ProcessWorker

from erv.environment import load_environment
from erv.stack.pools import pool_of


def main() -> int:
    """Makes sure that the pool is there, and that its runs work in this folder."""
    workspace = load_environment().workspace
    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["working_dir"]["default"] = str(workspace)
    pool = WorkPoolCreate(
        name=pool_of(workspace),
        type=ProcessWorker.type,
        description=f"Runs in {workspace} on {platform.node()}; `erv run --worker` there serves them.",
        base_job_template=template,
    )
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
