"""`kill -9` of stages at random moments, of DVC while it writes its lock, and of the flow."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from tests.chaos.place import Place, Started, words_of

# Who is killed, by a word of its command line. A decoder that dies costs its clip on purpose; none is here.
_VICTIMS: dict[str, Callable[[list[str]], bool]] = {
    "driver": lambda words: "tests.chaos.one_stage" in words,
    "guard": lambda words: "erv.pipeline.guard" in words,
    "dvc": lambda words: "dvc" in words and "erv.pipeline.guard" not in words,
    "stage": lambda words: any(word.startswith("stages.") for word in words) and "-c" not in words,
}


_ATTEMPTS = 3


def stage_at_random(place: Place, name: str) -> None:
    """Kills one process of a running stage; the next attempt must give the same bytes.

    A stage that has ended before the moment comes is started again, and one of its processes killed sooner.
    """
    victim = place.random.choice(list(_VICTIMS))
    # A forced run alone takes about as long as in the reference, where two stages ran side by side.
    wait = place.random.uniform(0.3, max(1.0, 0.9 * place.seconds.get(name, 5.0)))
    for _ in range(_ATTEMPTS):
        what = f"{name}, {victim} killed after {wait:.1f} s"
        started = place.start_stage(name)
        end = time.monotonic() + wait
        while time.monotonic() < end and started.process.poll() is None:
            time.sleep(0.02)
        killed = _kill(place, started, victim)
        ended = started.ended()
        if killed and ended.code > 0:
            place.allow(ended, what)
        place.nothing_runs(what)
        place.require(place.stage(name), what)
        place.check(what)
        place.ledger.say(what if killed else f"{name} had ended before the kill")
        if killed:
            return
        wait /= 3


def at_the_lock(place: Place, name: str) -> None:
    """Kills everything within half a second of DVC's writing dvc.lock; `erv run` must put it right.

    DVC often ends before the moment comes. It then writes its lock again, and is killed sooner.
    """
    wait = place.random.uniform(0.0, 0.5)
    for _ in range(_ATTEMPTS):
        what = f"{name}, killed {wait:.2f} s after `Updating lock file`"
        hit = _killed_at_the_lock(place, name, wait)
        place.nothing_runs(what)
        place.workspace.set_params({"ingest": {"max_excluded_share": 0.02}})
        place.require(place.erv("run", name), what)
        place.check(what)
        place.ledger.say(what if hit else f"{name} had ended before the kill")
        if hit:
            return
        wait /= 3


def _killed_at_the_lock(place: Place, name: str, wait: float) -> bool:
    """Runs a stage that changes its entry and kills all of it after `wait`; whether DVC was still there."""
    # DVC writes the lock only if an entry changes. This parameter is in the entry, but not in the outputs.
    place.workspace.set_params({"ingest": {"max_excluded_share": 0.03}})
    started = place.start_stage(name)
    if not started.saw("Updating lock file", 180):
        raise RuntimeError(f"{name} did not write the lock:\n{started.ended().text[-2000:]}")
    time.sleep(wait)
    family = started.family()
    dvc = [process for process in family if _VICTIMS["dvc"](list(words_of(process)))]
    for process in [*dvc, *family]:
        _end(process)
    place.ledger.add(place.scene, "faults")
    if dvc:
        place.ledger.add(place.scene, "kills")
    started.ended()
    return bool(dvc)


def flow_at_random(place: Place, target: str) -> None:
    """Kills the flow itself during `erv run --force TARGET`."""
    seconds = place.seconds.get(target, 5.0) + 8.0
    wait = place.random.uniform(1.0, seconds)
    started = place.start("erv", "run", "--force", target)
    what = f"erv run {target}, the flow killed after {wait:.1f} s"
    end = time.monotonic() + wait
    while time.monotonic() < end and started.process.poll() is None:
        time.sleep(0.02)
    if started.process.poll() is None:
        _end(psutil.Process(started.process.pid))
        place.ledger.add(place.scene, "kills")
        place.ledger.add(place.scene, "faults")
    started.ended()
    place.nothing_runs(what)
    place.require(place.erv("run", target), what)
    place.check(what)
    place.ledger.say(what)


def _kill(place: Place, started: Started, victim: str) -> bool:
    """Kills the victim, or whoever of the family is there; False if nobody is left."""
    family = started.family()
    chosen = [process for process in family if _VICTIMS[victim](list(words_of(process)))]
    if not chosen:
        chosen = [
            process
            for process in family
            if any(is_it(list(words_of(process))) for is_it in _VICTIMS.values())
        ]
    if not chosen:
        return False
    _end(chosen[-1])
    place.ledger.add(place.scene, "kills")
    place.ledger.add(place.scene, "faults")
    return True


def _end(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
