"""Runs by the first digits of their ids, as erv shows them: `erv · fold 1 (531a9623)`."""

from __future__ import annotations

import re

from erv.environment import Environment
from erv.errors import RegistryError
from erv.tracking.lock_entries import search
from erv.tracking.rest import Run

SHOWN = 8  # digits of a run's id, where erv shows it
_BEGINNING = re.compile(rf"[0-9a-f]{{{SHOWN},31}}")
_LISTED = 5


def run_beginning(environment: Environment, digits: str) -> Run | None:
    """The run of our experiment whose id begins so, also a deleted one.

    Args:
        environment: where MLflow is.
        digits: 8 to 31 hexadecimal digits; nothing is found by anything else.

    Raises:
        RegistryError: several runs begin so.
        OSError: MLflow can't be reached, or refuses.
    """
    if not _BEGINNING.fullmatch(digits):
        return None
    found = search(environment, f"attributes.run_id LIKE '{digits}%'", limit=_LISTED + 1, deleted=True)
    if len(found) > 1:
        ids = ", ".join(sorted(run.info.run_id for run in found[:_LISTED]))
        more = " and others" if len(found) > _LISTED else ""
        raise RegistryError(f"{digits}: the ids of several runs begin so: {ids}{more}; give more digits")
    return found[0] if found else None
