"""Where deployments work, who takes their runs, and whether those that are to run at certain times will."""

from __future__ import annotations

from collections.abc import Iterator

from erv.doctor.finding import Finding
from erv.environment import Environment, command_for, shared_servers


def deployments(environment: Environment) -> Iterator[Finding]:
    """Where the runs of deployments work, whether a worker takes them, and what waits in other pools."""
    from erv.stack import deployments as of_prefect
    from erv.stack import other_pools, pools

    if _prefect_is_away(environment):
        return
    found = of_prefect.deployed(environment)
    for place, names in of_prefect.foreign(environment, found).items():
        yield Finding("deployments", "ok", f"{of_prefect.listed(names)} run in {place}")
    if here := [one for one in found if one.place.is_of(environment)]:
        detail = f"{of_prefect.listed([one.name for one in here])} run here"
        if pools.worker_is_online(environment, pools.pool_of(environment.workspace)):
            yield Finding("deployments", "ok", f"{detail}; a worker is online")
        else:
            detail += "; no worker of this clone is running"
            yield Finding("deployments", "warn", detail, "`erv run --worker`, if there are to be runs")
        for left in other_pools.left_elsewhere(environment, here):
            remedy = "`erv run --deploy --cancel-waiting` cancels those that wait"
            yield from (Finding("deployments", "warn", line, remedy) for line in left.lines())
    if note := other_pools.former_note(environment):
        sentence, _, remedy = note.partition(": ")
        yield Finding("deployments", "warn", sentence, remedy)


def schedules(environment: Environment) -> Iterator[Finding]:
    """Deployments that are to run at certain times, and won't."""
    from erv.doctor.schedules import silent_schedules

    if _prefect_is_away(environment):
        return
    remedy = f"`make install`, then `erv stack down` and `{command_for('Prefect', environment.workspace)}`"
    if "Prefect" in shared_servers(environment):
        remedy = "have its background services restarted, with the versions in requirements/"
    for silent in silent_schedules(environment):
        detail = (
            f"{silent.name} has an active schedule, but since {silent.since:%Y-%m-%d %H:%M} UTC no run ahead:"
            f" the scheduler of Prefect at {environment.prefect_api_url} doesn't work"
        )
        yield Finding("schedules", "fail", detail, remedy)


def _prefect_is_away(environment: Environment) -> bool:
    """Whether there is nobody to ask, which the finding on the server has said."""
    from erv.stack.reach import unreachable

    url = environment.prefect_api_url
    return (
        url is None or unreachable("Prefect", f"{url.rstrip('/')}/health", environment.workspace) is not None
    )
