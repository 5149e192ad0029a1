"""Flow runs that a worker had taken when it was killed, before they could note that they run.

Prefect leaves them pending or running, and they keep the only slot of their deployment: after a restart of
the server for ever, because it forgets who was to give the slot back.
"""

from __future__ import annotations

from collections.abc import Sequence

from erv.environment import Environment
from erv.stack import flow_runs

# Prefect's workers give it to the process of a run.
_RUN_ID = "PREFECT__FLOW_RUN_ID"
_ENGINE = "prefect.engine"
REASON = "its worker was killed before it began"


def close_lost(environment: Environment, pool: str) -> list[str]:
    """Marks the runs of a clone's work pool as crashed that no process of this machine has.

    Nothing is done while a worker of the pool lives here: it may be about to start what it has taken. Nor
    while a run of another user does, of which nothing can be seen. A pool of a clone has workers on its
    machine only.

    Args:
        environment: where Prefect is.
        pool: of the clone.

    Returns:
        The ids of the runs that were closed.

    Raises:
        StackError: Prefect can't be reached or refuses.
    """
    held = flow_runs.holding(environment, pool)
    if not held:
        return []
    served, living = _processes(pool)
    lost = [] if served else [run.id for run in held if run.id not in living]
    for run_id in lost:
        flow_runs.set_state(environment, run_id, "CRASHED", REASON, force=True)
    return lost


def _processes(pool: str) -> tuple[bool, set[str]]:
    """Whether a worker of the pool lives on this machine, and which runs have a process."""
    import psutil

    served, living = False, set[str]()
    for process in psutil.process_iter():
        command: Sequence[str] = ()
        try:
            command = process.cmdline()
            served |= _serves(command, pool)
            living.add(process.environ().get(_RUN_ID, ""))
        except psutil.AccessDenied:
            served |= _ENGINE in command
        except psutil.NoSuchProcess:
            continue
    return served, living


def _serves(command: Sequence[str], pool: str) -> bool:
    """Whether it is a worker of the pool, however its command names that."""
    named = any(command[at : at + 2] in (["--pool", pool], ["-p", pool]) for at in range(len(command)))
    return "worker" in command and (named or f"--pool={pool}" in command)
