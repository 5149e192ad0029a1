"""Addresses that raters open, and what panels add to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

PATH = "/enter"
PLACEHOLDER = "{ID}"  # where another panel's own placeholder for its member's id belongs
TOKEN = "token"  # noqa: S105 (the name of a parameter)


@dataclass(frozen=True)
class PanelAddress:
    """How a panel names its members in an address.

    Attributes:
        parameter: the query parameter with the member's id.
        added: what the panel's own form takes, placeholders included, to fill in this id.
    """

    parameter: str
    added: str


# Prolific fills in its placeholders in the address entered there (its help: "Recording Prolific IDs").
PANELS: Mapping[str, PanelAddress] = {
    "prolific": PanelAddress(
        "PROLIFIC_PID",
        "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}",
    ),
    # No id of a member has braces, so an address that was entered as it is lets nobody in.
    "other": PanelAddress("participant", f"participant={PLACEHOLDER}"),
}


def link(base: str, token: str, panel: str | None = None) -> str:
    """The address for a rater, or for a panel's form.

    Args:
        base: where the pages are served, such as `https://study.example`.
        token: of the invitation.
        panel: a name of `PANELS`, or None.
    """
    address = f"{base.rstrip('/')}{PATH}?{urlencode({TOKEN: token})}"
    return address if panel is None else f"{address}&{PANELS[panel].added}"


def participant_in(query: Mapping[str, str]) -> str | None:
    """The panel's id of who opens an address, by its query parameters; None if there is none."""
    return next((query[known.parameter] for known in PANELS.values() if query.get(known.parameter)), None)
