"""The promote flow: a version becomes champion once a person has approved it in Prefect.

`prefect deployment run promote/model -p version=4` starts it through a worker. The run pauses and shows the
version's gates; "Resume" opens the form. If the version is champion already, the run ends at once. Prefect's
own server knows no users, so who approves signs by name.
An answer that lacks something, or that a new champion has overtaken, is asked for again.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from pydantic import Field

from erv.environment import Environment, isolate, load_environment
from erv.errors import ErvError
from erv.lineage.gate import LineageGate
from erv.lineage.withdrawal import WithdrawalGate
from erv.register import aliases
from erv.register.against_champion import unmet
from erv.register.review import Review, review
from erv.settings import Settings, load_settings
from erv.stack.one_origin import check_servers
from flows.clone import refuse_foreign_code
from flows.console import leave_out_tracebacks_of_ended_runs
from flows.form import Hours, Version

HOURS = 168.0
ANSWERS = 20  # nobody needs as many; a program that answers wrongly would ask for ever
_POLL_SECONDS = 5


class Approval(RunInput):
    """What the person decides."""

    name: str = Field(min_length=1, title="Your name", description="Kept with the champion's reign.")
    reason: str = Field(min_length=1, title="Reason", description="Why, or why not.")
    approve: bool = Field(default=True, title="Approve", description="Off: the champion stays.")
    force: bool = Field(default=False, title="Force", description="Also past the gates named above.")

    def lacks(self, asked: Review) -> str:
        """What the person has to fill in or tick, as a sentence; empty if nothing."""
        empty = [
            title for title, text in (("Your name", self.name), ("Reason", self.reason)) if not text.strip()
        ]
        if empty:
            return f"fill in {' and '.join(f'**{title}**' for title in empty)}."
        if self.approve and asked.against and not self.force:
            against = "; ".join(asked.against)
            return (
                f"version {asked.version} {unmet(asked.against)} ({against}). Tick **Force** to promote it"
                " all the same, or untick **Approve** to leave the champion as it is."
            )
        return ""


@flow(name="promote", persist_result=False, retries=0)
def promote(version: Version = "challenger", hours: Hours = HOURS) -> Any:
    """Asks a person whether a version becomes champion, and does as they say.

    Args:
        version: its number or alias.
        hours: how long to wait for an answer.
    """
    environment = load_environment()
    isolate(environment)
    leave_out_tracebacks_of_ended_runs()
    try:
        refuse_foreign_code()
        check_servers(environment, ("S3", "MLflow"))
        settings = load_settings(environment.workspace / "params.yaml")
        return _until_decided(str(version), environment, settings, time.monotonic() + hours * 3600)
    except FlowPauseTimeout:
        return Failed(message=f"nobody decided within {hours:g} hours; nothing was changed")
    except ErvError as error:
        return Failed(message=environment.mask(str(error)))


def _until_decided(version: str, environment: Environment, settings: Settings, ends: float) -> State[Any]:
    """Asks until an answer is complete and still fits the registry.

    Raises:
        FlowPauseTimeout: there was none by the end.
        RegistryError: no such version, or MLflow can't be reached.
    """
    lacks = reason = ""
    lineage = LineageGate(environment, settings, promoting=True)
    withdrawn = WithdrawalGate(environment, settings)
    for _ in range(ANSWERS):
        if said := aliases.already(version, environment, settings):
            return Completed(message=f"{said}; nothing was changed")
        get_run_logger().info("looking at the gates, the lineage and the files of version %s", version)
        asked = review(version, environment, settings, lineage=lineage, withdrawn=withdrawn)
        version = asked.version  # while the run waits, an alias may move to a version that nobody looked at
        approval = _answer(asked, lacks, reason, ends)
        lacks, reason = approval.lacks(asked), approval.reason.strip()
        if lacks:
            continue
        if not approval.approve:
            return Completed(message=f"{approval.name} declined version {version}: {reason}")
        try:
            said = aliases.promote(
                version,
                environment,
                settings,
                by=f"{approval.name.strip()} in Prefect",
                lineage=lineage,
                withdrawn=withdrawn,
                reason=reason,
                force=approval.force,
                shown=asked.against,
                expected=aliases.NOBODY if asked.champion is None else asked.champion.version,
            )
        except aliases.ChampionMovedError as error:
            lacks = f"{error}. Look at the present champion, and answer once more."
        except aliases.GatesUnmetError:
            lacks = (
                f"something keeps version {version} from becoming champion that you were not shown: gates"
                " were decided anew, or its files changed. Look at what is shown now, and answer once more."
            )
        else:
            return Completed(message=said)
    last = lacks.replace("**", "")
    return Failed(
        message=f"none of {ANSWERS} answers could be followed; nothing was changed. The last: {last}"
    )


def _answer(asked: Review, lacks: str, reason: str, ends: float) -> Approval:
    """Pauses the run until somebody has filled in the form.

    Args:
        asked: what the form shows.
        lacks: what the last answer lacked; empty at first.
        reason: of the last answer, so that nobody has to type it again.
        ends: when to stop waiting, by `time.monotonic`.
    """
    shown = asked.markdown(lacks)
    get_run_logger().log(logging.WARNING if lacks else logging.INFO, "%s", shown)
    kept = {"reason": reason} if reason else {}
    return pause_flow_run(
        wait_for_input=Approval.with_initial_data(description=shown, **kept),
        timeout=max(1, round(ends - time.monotonic())),
        poll_interval=_POLL_SECONDS,
    )
