"""Who waits for a slot decides later about a worker than who waits for its stage."""

import pytest

from erv.remote.pulse import Watched
from erv.stack.flow_runs import FlowRun
from flows.attempt import LOST_IN_A_ROW, Attempt
from flows.slots import unborn_seconds

_LOOK_SECONDS = 2.0  # between two looks of a coordinator, with some delay


@pytest.mark.parametrize("attempt", range(1, 3 * LOST_IN_A_ROW))
def test_a_starting_worker_is_given_up_first_by_its_coordinator(attempt: int) -> None:
    """It has asked at most as many workers as there were attempts, and gives up after some in a row."""
    now = 0.0
    one = object.__new__(Attempt)  # it would ask servers at once
    one._pods, one._starts, one._claim = False, min(attempt, LOST_IN_A_ROW), Watched(lambda: now)
    while not one._unclaimed(FlowRun("1", "RUNNING", "", {})):
        now += _LOOK_SECONDS
        assert now < unborn_seconds(attempt)
