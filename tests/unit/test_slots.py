"""Who waits for a slot decides later about a worker than who waits for its stage."""

import pytest

from flows import placed
from flows.attempt import CLAIM_SECONDS, LOST_IN_A_ROW
from flows.slots import unborn_seconds


@pytest.mark.parametrize("attempt", range(1, 3 * LOST_IN_A_ROW))
def test_a_starting_worker_is_given_up_first_by_its_coordinator(attempt: int) -> None:
    """It has asked at most as many workers as there were attempts, and gives up after some in a row."""
    most = min(attempt, placed.LOST_IN_A_ROW)
    assert unborn_seconds(attempt) > CLAIM_SECONDS * most
