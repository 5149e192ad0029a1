"""Creates work pools that workers of several clones serve: `python -m flows.shared_pools [POOL...]`.

With each pool comes the deployment `run-stage/POOL`, which is of no clone: it names a module, which each
worker imports from its own. `erv run --deploy` and `erv run --worker --pool NAME` run this. A pool that is
there is left as it is, with the limit that somebody has given it. With `--job-template FILE`, the stages of
the pools run as Kubernetes jobs that are made from that file; a pool that is there gets the file's template.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from erv.errors import ErvError, StackError
from erv.settings.pool_name import check_pool_name
from erv.stack.job_template import read_job_template
from erv.stack.pools import KUBERNETES
from flows.run_stage import NAME, run_stage

USUAL = ("cpu", "gpu")
LIMIT = 4  # stages at a time, over all workers of a new pool


def main(names: Sequence[str], template: Path | None = None) -> int:
    """Makes sure that the pools and their deployments are there; prints the limit of each pool.

    Args:
        names: of the pools; by default the usual ones, of whatever type they are.
        template: the base job template of pools of type kubernetes; None for pools of type process.

    Raises:
        StackError: the template has faults, or a named pool is of the other type.
        SettingsError: no placement could name a pool.
    """
    for name in names:
        check_pool_name(name)
    jobs = None if template is None else read_job_template(template)
    with get_client(sync_client=True) as client:
        for name in names or USUAL:
            limit = _pool(client, name, jobs, any_type=not names)
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


def _pool(client: SyncPrefectClient, name: str, jobs: dict[str, Any] | None, *, any_type: bool) -> int | None:
    """The limit of a pool, which is created if it is missing."""
    kind = ProcessWorker.type if jobs is None else KUBERNETES
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        description = f"Single stages of any clone; `erv run --worker --pool {name}` serves them."
        wanted = WorkPoolCreate(
            name=name,
            type=kind,
            concurrency_limit=LIMIT,
            description=description,
            base_job_template=jobs or ProcessWorker.get_default_base_job_template(),
        )
        try:
            found = client.create_work_pool(wanted)
        except ObjectAlreadyExists:  # another worker was faster
            found = client.read_work_pool(name)
    if found.type != kind and not any_type:
        raise StackError(
            f"work pool {name!r} is of type {found.type}, but {_made(jobs)} serves one of type {kind}; name"
            f" another pool with --pool, or end the workers of this one and `prefect work-pool delete {name}`"
        )
    if jobs is not None and found.base_job_template != jobs:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=jobs))
    return found.concurrency_limit


def _made(jobs: dict[str, Any] | None) -> str:
    return "a worker without --job-template" if jobs is None else "a worker with --job-template"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Creates work pools that workers of several clones serve.")
    parser.add_argument("pools", nargs="*", metavar="POOL")
    parser.add_argument("--job-template", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    try:
        sys.exit(main(given.pools, given.job_template))
    except ErvError as error:
        sys.exit(f"error: {error}")
