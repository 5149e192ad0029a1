"""`erv study`: studies with people, from the plan to the report."""

from __future__ import annotations

import click

from erv.commands.lazy import LazyGroup

# Command name -> module of `erv.commands` that defines the click command `command`. In the order of use.
COMMANDS = {
    "prepare": "study_prepare",
    "extend": "study_extend",
    "invite": "study_invite",
    "revoke": "study_revoke",
    "serve": "study_serve",
    "status": "study_status",
    "export": "study_export",
    "import": "study_import",
    "report": "study_report",
    "simulate": "study_simulate",
}


@click.group(name="study", cls=LazyGroup, modules=COMMANDS)
def command() -> None:
    """Ask people which explanations are right.

    `prepare` makes a study of evaluated policies, `serve` asks raters in their browsers, `report` says what
    they think, and how far they agree with judges and verifier.
    """
