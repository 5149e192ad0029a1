"""How long a placed stage waits for a worker, and what is said meanwhile."""

from __future__ import annotations

import pytest

from flows import patience
from flows.patience import NobodyComesError, Patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    return now


def test_it_warns_seldom_and_then_gives_up(clock: list[float]) -> None:
    said: list[str] = []
    waiting = Patience(3600, "gpu", said.append)
    for clock[0] in range(0, 3600, 2):
        waiting.look(False)
    (one,) = set(said)
    assert one == (
        "WARNING: no worker serves work pool 'gpu'; start `erv run --worker --pool gpu` on a machine that is"
        " to do it"
    )
    assert 11 <= len(said) <= 12
    clock[0] = 3601
    with pytest.raises(NobodyComesError, match=r"no worker has served work pool 'gpu' for 60 minutes"):
        waiting.look(False)


def test_one_minute_is_no_plural(clock: list[float]) -> None:
    for seconds, said in {60: "1 minute ", 30: "0.5 minutes "}.items():
        waiting = Patience(seconds, "gpu", lambda _line: None)
        waiting.look(False)
        clock[0] += seconds + 1
        with pytest.raises(NobodyComesError, match=f"for {said}"):
            waiting.look(False)


def test_a_worker_that_comes_starts_it_anew(clock: list[float]) -> None:
    waiting = Patience(60, "gpu", lambda _line: None)
    waiting.look(False)
    clock[0] = 50
    waiting.look(True)
    clock[0] = 100
    waiting.look(False)
    clock[0] = 150
    waiting.look(False)
