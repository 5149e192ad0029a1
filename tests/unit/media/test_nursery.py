"""Forked workers, where they differ from others: whose process ends, and what a fork would hand on."""

from __future__ import annotations

import logging
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from erv.answering.media import decoded_clips
from erv.answering.seeing import nursery_for
from erv.media import nursery
from erv.media.decode import Decoded, DecodeRule, load_decoders
from erv.media.nursery import Forked, Nursery, can_fork
from erv.media.workers import Outcome, isolated
from tests.support.starting import nothing
from tests.support.tiny_bundle import write_clip

pytestmark = pytest.mark.skipif(not can_fork(), reason="workers can't be forked on this system")


def outcomes(function, items, start, **given) -> list[Outcome]:
    return list(isolated(function, items, **{"workers": 1, "seconds": 30.0, **given}, start=start))


def parent(item: int) -> int:
    """The process that forked the worker."""
    return os.getppid()


def own_descriptors(item: int) -> list[str]:
    """What a worker holds while its sibling does, too."""
    time.sleep(0.5)
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:  # that of the list itself
            continue
    return found


def test_a_worker_holds_its_own_pipe_and_nothing_of_its_siblings() -> None:
    with Nursery(nothing, [own_descriptors]) as nursery_:
        for outcome in outcomes(own_descriptors, range(6), nursery_.start, workers=3):
            assert len(outcome.result) == 4, outcome.result
            assert sum(name.startswith("socket:") for name in outcome.result) == 1, outcome.result


def test_one_process_forks_all_and_is_no_worker() -> None:
    with Nursery(nothing, [parent]) as nursery_:
        found = {outcome.result for _ in range(3) for outcome in outcomes(parent, [0], nursery_.start)}
        (forking,) = found
        assert psutil.Process(forking).ppid() == os.getpid()


def drawn(item: int) -> float:
    return random.random()


def test_random_numbers_begin_anew() -> None:
    with Nursery(nothing, [drawn]) as nursery_:
        assert len({outcomes(drawn, [0], nursery_.start)[0].result for _ in range(3)}) == 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("nursery") / "clip.mp4")


RULE = DecodeRule(frames=2, size=32, geometry="stretch", sample_rate=16000)
LIMITS = {
    **{"min_seconds": 0.5, "max_seconds": 60.0, "min_fps": 5.0, "min_side": 16, "min_brightness": 8.0},
    "min_loudness_db": -60.0,
}


def test_a_clip_is_decoded_as_by_other_workers(clip: Path) -> None:
    with nursery_for(RULE) as nursery_:
        (forked,) = decoded_clips([clip], RULE, LIMITS, None, nursery_.start)
    (alone,) = decoded_clips([clip], RULE, LIMITS, None)
    assert isinstance(forked, Decoded)
    assert isinstance(alone, Decoded)
    np.testing.assert_array_equal(forked.frames, alone.frames)
    np.testing.assert_array_equal(forked.audio, alone.audio)


IMPORTED: list[str] = []


def load_and_note() -> None:
    """As a worker is prepared; notes what is imported then."""
    from erv.answering.media import see

    load_decoders()
    IMPORTED[:] = [*sys.modules, see.__module__]


def imported_late(path: str) -> list[str]:
    from erv.answering.media import see
    from erv.media.decode import decode_task

    see(decode_task(Path(path), RULE))
    return sorted(set(sys.modules) - set(IMPORTED))


def test_a_fork_has_imported_all_that_a_clip_needs(clip: Path) -> None:
    """Else each worker would import it again, and the time of a clip would run meanwhile."""
    with Nursery(load_and_note, [imported_late]) as nursery_:
        (outcome,) = outcomes(imported_late, [str(clip)], nursery_.start)
    late = [name for name in outcome.result if not name.startswith("tests.")]
    assert late == []


def kill_once(item: tuple[str, Path]) -> str:
    """The first time, kills the process that forked it, and itself with it."""
    what, mark = item
    if what == "kill" and not mark.exists():
        mark.touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return what


def test_a_process_that_was_killed_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    items = [("a", tmp_path / "a"), ("kill", tmp_path / "kill"), ("b", tmp_path / "b")]
    with Nursery(nothing, [kill_once]) as nursery_:
        found = outcomes(kill_once, items, nursery_.start, seconds=10.0)
        assert [(outcome.result, outcome.failure) for outcome in found] == [
            ("a", None), ("kill", None), ("b", None)
        ]  # fmt: skip
        said = [record.getMessage() for record in caplog.records]
        assert said == ["the process that forks media workers was killed (signal 9); started again"]
        caplog.clear()
        # Between two requests.
        (first,) = outcomes(parent, [0], nursery_.start)
        os.kill(first.result, signal.SIGKILL)
        (second,) = outcomes(parent, [0], nursery_.start)
        assert second.failure is None
        assert second.result != first.result
        assert len(caplog.records) == 1


def kill_always(item: int) -> int:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return item


def test_a_worker_that_is_killed_with_it_ends_as_one_that_is_killed() -> None:
    with Nursery(nothing, [kill_always]) as nursery_:
        (outcome,) = outcomes(kill_always, [0], nursery_.start, seconds=10.0)
    assert outcome.failure == "decoder process died (signal 9)"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ImportError("no decoder")


@pytest.mark.parametrize(
    ("prepare", "how"), [(die, r"was killed \(signal 9\), twice$"), (fail, r"ended \(1\), twice$")]
)
def test_one_that_ends_again_ends_the_request(prepare, how, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        Nursery(prepare) as nursery_,
        pytest.raises(RuntimeError, match=r"could not start: the process that forks it " + how),
    ):
        outcomes(parent, [0], nursery_.start)
    assert ("no decoder" in capfd.readouterr().err) == (prepare is fail)


def start_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()


SHARED: list[mmap.mmap] = []


def share_memory() -> None:
    SHARED.append(mmap.mmap(-1, 4096))


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (start_a_thread, "a library that they need runs 1 more threads"),
        (share_memory, "a library that they need shares its memory with other processes"),
    ],
)
def test_what_must_not_be_forked_is_not(prepare, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with Nursery(prepare, [parent]) as nursery_:
        for _ in range(2):
            (outcome,) = outcomes(parent, [0], nursery_.start)
            assert outcome.result == os.getpid()
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"media workers are not forked, which would be faster: {reason}"]


def test_where_workers_can_not_be_confined_none_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    from erv.media.confinement import Confinement

    for given in (Confinement(0, seccomp=True), Confinement(7, seccomp=False)):
        monkeypatch.setattr(nursery, "tried", lambda given=given: given)
        with Nursery(nothing, [parent]) as nursery_:
            (outcome,) = outcomes(parent, [0], nursery_.start)
            assert outcome.result == os.getpid()


def test_many_threads_ask_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Also while it is killed: each is answered, and it is started again once."""
    caplog.set_level(logging.WARNING)
    found: list[Outcome] = []
    with Nursery(load_decoders, [parent]) as nursery_:

        def ask() -> None:
            for _ in range(5):
                found.extend(outcomes(parent, [0, 1], nursery_.start))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        nursery_.begin()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [outcome.failure for outcome in found] == [None] * 40
        (forking,) = {outcome.result for outcome in found}
        assert caplog.records == []
        os.kill(forking, signal.SIGKILL)
        found.clear()
        # Here, as a thread of this test would take it along when it ends.
        found.extend(outcomes(parent, [0], nursery_.start))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({outcome.result for outcome in found} - {forking}) == 1
        assert len(caplog.records) == 1


def test_a_worker_is_killed_and_waited_for_as_a_program_is() -> None:
    import socket

    with Nursery(nothing) as nursery_:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker = nursery_.start(theirs)
            assert isinstance(worker, Forked)
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(0.1)
            worker.kill()
            worker.kill()
            assert worker.wait() == -signal.SIGKILL
            worker.kill()  # nothing, whoever has its number now
            assert worker.wait(0.0) == -signal.SIGKILL
            assert not psutil.pid_exists(worker.pid)


def test_a_worker_whose_pipe_closes_ends_by_itself() -> None:
    import socket

    with Nursery(nothing) as nursery_:
        ours, theirs = socket.socketpair()
        with theirs:
            worker = nursery_.start(theirs)
        ours.close()
        assert worker.wait(30) == 0
