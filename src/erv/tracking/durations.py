"""How long stages took when they last ran to their end, from their MLflow runs."""

from __future__ import annotations

from collections.abc import Iterable

from erv.environment import Environment
from erv.tracking.lock_entries import search


def last_seconds(environment: Environment, names: Iterable[str]) -> dict[str, float]:
    """Seconds of wall time of the newest finished run of each stage; a stage without one is left out.

    A run that went on from a checkpoint counts its own part alone.

    Args:
        environment: where MLflow is; without one, nothing is known.
        names: stages, such as `grpo@erv`.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    found = {}
    for name in names:
        condition = f"attributes.run_name = '{name}' and attributes.status = 'FINISHED'"
        for run in search(environment, condition, limit=1):
            if run.info.end_time:
                found[name] = (run.info.end_time - run.info.start_time) / 1000
    return found
