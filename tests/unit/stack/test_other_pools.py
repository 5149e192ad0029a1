"""What is said of runs that wait in another clone's pool, of one as of many."""

from __future__ import annotations

import pytest

from erv.stack.other_pools import Left


def left(count: int, folder: str | None = "/ann") -> Left:
    return Left("pool", folder, False, tuple(map(str, range(count))), 0, ())


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (1, "1 run waits in work pool 'pool': it stays, and runs in /ann, once a worker is started there"),
        (2, "2 runs wait in work pool 'pool': they stay, and run in /ann, once a worker is started there"),
    ],
)
def test_what_becomes_of_runs_that_wait(count: int, said: str) -> None:
    assert list(left(count).lines()) == [said]


def test_the_pool_of_no_clone() -> None:
    said = "1 run waits in work pool 'pool': the pool is no clone's, so no worker of this version takes it,"
    assert list(left(1, None).lines()) == [f"{said} and any other fails with it"]
    assert next(left(2, None).lines()).endswith("takes them, and any other fails with them")


@pytest.mark.parametrize(
    ("waited", "count", "said"),
    [
        (1, 1, "cancelled: the run that waited in work pool 'pool'"),
        (1, 0, "not cancelled: the run in work pool 'pool' has begun"),
        (3, 2, "cancelled: 2 of 3 runs that waited in work pool 'pool'"),
    ],
)
def test_what_was_cancelled(waited: int, count: int, said: str) -> None:
    assert left(waited).cancelled(count) == said
