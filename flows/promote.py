"""The promote flow: a version becomes champion once a person has approved it in Prefect.

`prefect deployment run promote/local -p version=4` starts it through a worker. The run pauses and shows the
version's gates; "Resume" opens the form. Prefect's own server knows no users, so who approves signs by name.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field

from erv.environment import isolate, load_environment
from erv.errors import ErvError
from erv.register import aliases
from erv.register.review import review
from erv.settings import load_settings

HOURS = 168.0
_POLL_SECONDS = 5


class Approval(RunInput):
    """What the person decides."""

    name: str = Field(min_length=1, title="Your name", description="Kept with the champion's reign.")
    reason: str = Field(min_length=1, title="Reason", description="Why, or why not.")
    approve: bool = Field(default=True, title="Approve", description="Off: the champion stays.")
    force: bool = Field(default=False, title="Force", description="Also past gates that it did not pass.")


@flow(name="promote", persist_result=False, retries=0)
def promote(version: int | str = "challenger", hours: float = HOURS) -> Any:
    """Asks a person whether a version becomes champion, and does as they say.

    Args:
        version: its number or alias; Prefect's command line makes a number of `-p version=2`.
        hours: how long to wait for an answer.
    """
    environment = load_environment()
    isolate(environment)
    try:
        settings = load_settings(environment.workspace / "params.yaml")
        asked = review(str(version), environment, settings)
        get_run_logger().info("%s", asked.markdown())
        # By number: while the run waits, the alias may move to a version that nobody looked at.
        approval = pause_flow_run(
            wait_for_input=Approval.with_initial_data(description=asked.markdown()),
            timeout=round(hours * 3600),
            poll_interval=_POLL_SECONDS,
        )
        if not approval.approve:
            return Completed(message=f"{approval.name} declined version {asked.version}: {approval.reason}")
        said = aliases.promote(
            asked.version,
            environment,
            settings,
            by=f"{approval.name} in Prefect",
            reason=approval.reason,
            force=approval.force,
        )
    except ErvError as error:
        return Failed(message=environment.mask(str(error)))
    return Completed(message=said)
