"""How many requests a client may send."""

from __future__ import annotations

import pytest

from erv.serve.rates import _MOST_CLIENTS, Buckets, Pace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_and_then_an_even_rate() -> None:
    clock = Clock()
    buckets = Buckets(60, 3, clock)
    assert [buckets.wait("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.wait("a") == pytest.approx(1.0)
    assert buckets.wait("b") == 0, "another client has a bucket of its own"
    clock.now = 0.4
    assert buckets.wait("a") == pytest.approx(0.6), "a refused request costs nothing"
    clock.now = 1.0
    assert buckets.wait("a") == 0
    assert buckets.wait("a") == pytest.approx(1.0)
    clock.now = 100.0
    assert [buckets.wait("a") for _ in range(4)] == [0, 0, 0, pytest.approx(1.0)]


def test_many_clients_are_not_remembered_for_ever() -> None:
    clock = Clock()
    buckets = Buckets(60, 1, clock)
    for number in range(3 * _MOST_CLIENTS):
        clock.now += 1e-5
        buckets.wait(str(number))
        assert len(buckets._kept) <= _MOST_CLIENTS + 1
    assert buckets.wait(str(3 * _MOST_CLIENTS - 1)) > 0, "the last ones are"


@pytest.mark.parametrize(("per_minute", "burst"), [(0, 1), (1, 0)])
def test_wrong_rates(per_minute: float, burst: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Buckets(per_minute, burst)


def test_pace() -> None:
    pace = Pace(8)
    assert pace.until_free(0) == 1
    for _ in range(100):
        pace.add(20.0)
    assert pace.until_free(8) == 10
    assert pace.until_free(32) == 40
