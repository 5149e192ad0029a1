import mmap
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from erv.media.workers import _AHEAD, isolated
from tests.support.starting import WAYS, starting


def misbehave(item: int) -> int:
    if item == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 4:
        time.sleep(600)
    if item == 6:
        raise ValueError("six")
    if item == 7:
        os._exit(3)
    if item == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


@pytest.mark.parametrize(("workers", "way"), [(1, "alone"), (3, "alone"), (1, "forked"), (3, "forked")])
def test_a_worker_that_crashes_or_hangs_costs_one_item(workers, way):
    started = time.monotonic()
    with starting(way, misbehave) as start:
        outcomes = list(
            isolated(misbehave, range(14), workers=workers, seconds=2.0, expected=(ValueError,), start=start)
        )
    assert time.monotonic() - started < 300  # half of what the hang would take
    assert [outcome.item for outcome in outcomes] == list(range(14))
    failures = {outcome.item: outcome.failure for outcome in outcomes if outcome.failure}
    assert failures == {
        2: "decoder process died (signal 11)",
        4: "not done within 2 s",
        6: "six",
        7: "decoder exited (3)",
        9: "decoder process died (signal 9)",
    }
    assert all(o.result == o.item**2 for o in outcomes if o.item not in failures)


def test_an_unexpected_error_is_not_a_failure_of_the_clip():
    with pytest.raises(RuntimeError, match=r"a media worker failed:\n(.*\n)*ValueError: six"):
        list(isolated(misbehave, [5, 6], workers=1, seconds=20))
    assert list(isolated(misbehave, [], workers=1, seconds=20)) == []


def late_once(item: tuple[Path, int]) -> list[str]:
    """Item 1 hangs when it is tried first; item 4 always; what runs beside an item is its result."""
    folder, number = item
    mine, marks = folder / f"running-{number}", folder / f"tried-{number}"
    again = marks.exists()
    marks.touch()
    mine.touch()
    time.sleep(0.2)
    beside = sorted(path.name for path in folder.glob("running-*") if path != mine)
    if number == 4 or (number == 1 and not again):
        time.sleep(600)
    mine.unlink()
    return beside if again else []


@pytest.mark.slow
def test_an_item_that_was_late_is_tried_once_more_alone(tmp_path):
    items = [(tmp_path, number) for number in range(8)]
    outcomes = list(isolated(late_once, items, workers=2, seconds=3.0))
    assert [outcome.item for outcome in outcomes] == items
    assert {o.item[1]: o.failure for o in outcomes if o.failure} == {4: "not done within 3 s"}
    # Item 4 is killed in its first try too and leaves its mark; nothing that runs does.
    assert outcomes[1].result in ([], ["running-4"])
    assert all(outcome.result == [] for outcome in outcomes if outcome.item[1] not in (1, 4))


POISONED = []


def poison(item: int) -> int:
    """Item 3 leaves something behind that kills its process at the next item."""
    if POISONED:
        os.abort()
    if item == 3:
        POISONED.append(item)
    return item


def test_an_item_does_not_pay_for_the_one_before_it():
    outcomes = list(isolated(poison, range(8), workers=1, seconds=30))
    assert [(outcome.result, outcome.failure) for outcome in outcomes] == [(item, None) for item in range(8)]


def hungry(item: tuple[str, int]) -> int:
    how, megabytes = item
    if how == "heap":
        return int(np.ones(megabytes * 1_000_000, np.uint8)[-1])
    shared = mmap.mmap(-1, megabytes * 1_000_000)  # which the kernel's limit does not count
    for position in range(0, len(shared), 4096):
        shared[position] = 1
    time.sleep(5)
    return 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["heap", "shared"])
def test_an_item_that_needs_too_much_memory_fails_alone(how, way):
    items = [("heap", 10), (how, 600), ("heap", 100), ("heap", 20)]
    with starting(way, hungry) as start:
        outcomes = list(isolated(hungry, items, workers=2, seconds=60, memory_mb=300, start=start))
    assert [outcome.failure for outcome in outcomes] == [None, "needs more than 300 MB", None, None]
    assert [outcome.result for outcome in outcomes] == [1, None, 1, 1]


kept = []


def leak(item: int) -> int:
    kept.append(np.ones(100_000_000, np.uint8))
    time.sleep(0.3)  # longer than between two looks
    return os.getpid()


def use_and_free(item: int) -> int:
    filled = np.ones(400_000_000, np.uint8)
    time.sleep(0.6)
    return os.getpid() if filled[item] else 0


@pytest.mark.parametrize(("workers", "way"), [(1, "alone"), (2, "alone"), (1, "forked")])
def test_a_worker_that_keeps_memory_is_replaced_in_time(workers, way):
    with starting(way, leak) as start:
        outcomes = list(isolated(leak, range(9), workers=workers, seconds=60, memory_mb=700, start=start))
    assert [outcome.item for outcome in outcomes] == list(range(9))
    assert [outcome.failure for outcome in outcomes] == [None] * 9
    # 256 MB are kept after three items; one more may be given before that is seen.
    most = Counter(outcome.result for outcome in outcomes).most_common(1)[0][1]
    assert 3 <= most <= 5


def test_memory_that_is_freed_is_no_reason_to_replace_a_worker():
    outcomes = list(isolated(use_and_free, range(4), workers=1, seconds=60, memory_mb=700))
    assert len({outcome.result for outcome in outcomes}) == 1


def pid(item: int) -> int:
    return os.getpid()


def kill_the_idle(item: tuple[Path, int]) -> int:
    """Item 0 waits until the other worker has nothing to do, kills it, and sees that another one comes."""
    folder, number = item
    if number > 0:
        (folder / f"{number}-{os.getpid()}").touch()
        return os.getpid()
    parent = psutil.Process(os.getppid())
    crew = {child.pid for child in parent.children()}
    # So many items may be given out; one is this, and one waits here behind it.
    while len(marks := list(folder.iterdir())) < 2 * 2 + _AHEAD - 2:
        time.sleep(0.02)
    (victim,) = {int(mark.name.partition("-")[2]) for mark in marks}
    # It has only the last result to send, which needs no waiting: asleep, it waits for an item.
    while psutil.Process(victim).status() != psutil.STATUS_SLEEPING:
        time.sleep(0.02)
    os.kill(victim, signal.SIGKILL)
    while not {child.pid for child in parent.children()} - crew:
        time.sleep(0.02)
    return victim


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_dies_between_items_costs_none_and_is_replaced(tmp_path, caplog, way):
    items = [(tmp_path, number) for number in range(60)]
    with starting(way, kill_the_idle) as start:
        outcomes = list(isolated(kill_the_idle, items, workers=2, seconds=60, start=start))
    assert [(outcome.item, outcome.failure) for outcome in outcomes] == [(item, None) for item in items]
    victim = outcomes[0].result
    results = [outcome.result for outcome in outcomes[1:]]
    last = max(index for index, result in enumerate(results) if result == victim)
    assert last < 2 * 2 + _AHEAD
    assert len(results[last + 1 :]) > 30
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "a media worker ended between two clips: decoder process died (signal 9); replaced",
    ]


class TwoArgumentsError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class WithFunctionError(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.function = lambda: text


class Unknown:
    pass


def odd(item: str) -> object:
    if item == "two":
        raise TwoArgumentsError("this", "that")
    if item == "function":
        raise WithFunctionError("of ours")
    return {"result": lambda: item, "class": Unknown(), "objects": np.array([None])}.get(item, item)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("two", r"TwoArgumentsError: this and that"),
        ("function", r"WithFunctionError: of ours"),
        ("result", r"TypeError: an answer can't hold a function"),
        ("class", r"TypeError: an answer can't hold a Unknown"),
        ("objects", r"TypeError: an answer can't hold a ndarray"),
    ],
)
def test_what_is_not_plain_is_reported_as_text_and_loses_no_item(item, words):
    with pytest.raises(RuntimeError, match=words) as refusal:
        # Not even where the kind of error is expected of an item.
        list(isolated(odd, [item, "plain"], workers=1, seconds=30, expected=(AttributeError, TypeError)))
    assert "a media worker failed:\nTraceback" in str(refusal.value)
    assert "worker_process.py" in str(refusal.value)


def arrays(item: int) -> dict:
    return {"a": np.full((3, 1000, 1000), item, np.uint8), "b": [np.arange(item), "text"], "c": None}


def test_large_results_come_as_they_were():
    for outcome in isolated(arrays, range(6), workers=2, seconds=30):
        expected = arrays(outcome.item)
        np.testing.assert_array_equal(outcome.result["a"], expected["a"])
        np.testing.assert_array_equal(outcome.result["b"][0], expected["b"][0])
        assert outcome.result["b"][1:] == ["text"]
        assert outcome.result["c"] is None


def content(item: bytes) -> np.ndarray:
    return np.frombuffer(item, np.uint8)


def test_large_items_do_not_block():
    items = [bytes(2_000_000) for _ in range(5)]
    assert [len(outcome.result) for outcome in isolated(content, items, workers=1, seconds=30)] == [
        2_000_000
    ] * 5


PREPARED = []


def slow_start() -> None:
    time.sleep(2.5)
    PREPARED.append(True)


def was_prepared(item: int) -> bool:
    return bool(PREPARED)


def test_preparing_is_in_no_items_time():
    outcomes = list(isolated(was_prepared, [0], workers=1, seconds=2.0, prepare=slow_start))
    assert [(outcome.result, outcome.failure) for outcome in outcomes] == [(True, None)]


def fail_to_start() -> None:
    raise ImportError("no decoder")


def test_a_worker_that_cannot_start_ends_the_run():
    with pytest.raises(RuntimeError, match=r"could not start: decoder exited \(1\)"):
        list(isolated(was_prepared, [0], workers=1, seconds=5.0, prepare=fail_to_start))


@pytest.mark.parametrize("way", WAYS)
def test_no_process_is_left_behind(way):
    before = set(psutil.Process().children(recursive=True))
    with starting(way, pid) as start:
        outcomes = isolated(pid, range(100), workers=2, seconds=30, start=start)
        next(outcomes)
        assert set(psutil.Process().children(recursive=True)) - before
        outcomes.close()
        assert len(set(psutil.Process().children(recursive=True)) - before) == (way == "forked")
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize("way", WAYS)
def test_workers_die_with_their_parent(way):
    """`kill -9` of the parent while its worker is busy."""
    import subprocess
    import sys

    script = (
        "from erv.media.workers import isolated; from tests.unit.media.test_workers import misbehave\n"
        "from tests.support.starting import starting\n"
        f"with starting({way!r}, misbehave) as start:\n"
        "    list(isolated(misbehave, [4], workers=1, seconds=600, start=start))"
    )
    expected = ["alone", "forked"].index(way) + 1
    parent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while len(children := psutil.Process(parent.pid).children(recursive=True)) < expected:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    parent.kill()
    parent.wait()
    gone, alive = psutil.wait_procs(children, timeout=30)
    assert gone
    assert not alive
