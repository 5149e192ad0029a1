"""A wall clock that jumps by hours or days, before or in the middle of a stage."""

from __future__ import annotations

import os
from pathlib import Path

from tests.chaos.place import Place

_SHIFTER = str(Path(__file__).parent / "clock")


def jumps(place: Place, stage: str, shift: float, after: float) -> None:
    """Runs a stage while the clock jumps. S3 may refuse a signature, clearly; nothing else may differ.

    Args:
        place: the workspace.
        stage: of dvc.yaml.
        shift: seconds, forward or back.
        after: seconds from the start of each process to the jump.
    """
    what = f"{stage}, the clock jumps by {shift / 3600:+.1f} h after {after:.0f} s"
    path = os.pathsep.join([_SHIFTER, place.workspace.environment["PYTHONPATH"]])
    place.ledger.add(place.scene, "faults")
    extra = {"ERV_CHAOS_CLOCK": f"{shift},{after}", "PYTHONPATH": path}
    place.allow(place.stage(stage, extra=extra), what)
    place.nothing_runs(what)
    place.require(place.stage(stage, force=False), what)
    place.check(what)
    place.ledger.say(what)
