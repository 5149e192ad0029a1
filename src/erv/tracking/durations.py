"""How long stages took when they last ran to their end, from their MLflow runs."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from erv.environment import Environment
from erv.tracking.lock_entries import search
from erv.tracking.names import HOST_TAG

_DEVICE = "runtime.device"


@dataclass(frozen=True)
class Took:
    """How long a stage took.

    Attributes:
        seconds: of wall time.
        elsewhere: `on gpu-box`, `with runtime.device cuda`, if no run of this machine with the same device is
            known; empty otherwise.
    """

    seconds: float
    elsewhere: str = ""


def last_times(environment: Environment, names: Iterable[str], device: str) -> dict[str, Took]:
    """The newest finished run of each stage, of this machine and device if there is one, or else of any.

    A stage without one is left out. A run that went on from a checkpoint counts its own part alone.

    Args:
        environment: where MLflow is; without one, nothing is known.
        names: stages, such as `grpo@erv`.
        device: `runtime.device` as it is set now.

    Raises:
        OSError: MLflow can't be reached, or refuses.
    """
    host = platform.node()
    here = f" and tags.`{HOST_TAG}` = '{host}' and params.`{_DEVICE}` = '{device}'"
    found = {}
    for name in names:
        finished = f"attributes.run_name = '{name}' and attributes.status = 'FINISHED'"
        for run in search(environment, finished + here, limit=1) or search(environment, finished, limit=1):
            if run.info.end_time:
                seconds = (run.info.end_time - run.info.start_time) / 1000
                found[name] = Took(seconds, _elsewhere(run, host, device))
    return found


def _elsewhere(run: Any, host: str, device: str) -> str:
    theirs, used = run.data.tags.get(HOST_TAG), run.data.params.get(_DEVICE)
    if theirs != host:
        return f"on {theirs}" if theirs else "on a machine that its run doesn't name"
    return f"with {_DEVICE} {used}" if used != device else ""
