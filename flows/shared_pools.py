"""Creates work pools that workers of several clones serve: `python -m flows.shared_pools [POOL...]`.

With each pool comes the deployment `run-stage/POOL`, which is of no clone: it names a module, which each
worker imports from its own. `erv run --deploy` and `erv run --worker --pool NAME` run this. A pool that is
there is left as it is, with the limit that somebody has given it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.run_stage import NAME, run_stage

USUAL = ("cpu", "gpu")
LIMIT = 4  # stages at a time, over all workers of a new pool


def main(names: Sequence[str]) -> int:
    """Makes sure that the pools and their deployments are there; prints the limit of each pool."""
    with get_client(sync_client=True) as client:
        for name in names or USUAL:
            limit = _pool(client, name)
            client.create_deployment(
                client.create_flow_from_name(NAME),
                name,
                work_pool_name=name,
                entrypoint=f"{run_stage.fn.__module__}.{run_stage.fn.__name__}",
                description=f"Runs single stages that machine.placement of any clone sends to {name!r}.",
                parameter_openapi_schema=parameter_schema(run_stage).model_dump_for_openapi(),
                enforce_parameter_schema=True,
                pull_steps=[],
            )
            print(f"{name}: {'any number' if limit is None else limit}")  # noqa: T201
    return 0


def _pool(client: SyncPrefectClient, name: str) -> int | None:
    """The limit of a pool, which is created if it is missing."""
    try:
        return client.read_work_pool(name).concurrency_limit
    except ObjectNotFound:
        description = f"Single stages of any clone; `erv run --worker --pool {name}` serves them."
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=ProcessWorker.type,
                concurrency_limit=LIMIT,
                description=description,
                base_job_template=ProcessWorker.get_default_base_job_template(),
            )
        )
        return LIMIT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
