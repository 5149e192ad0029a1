"""What each engine makes of a killed decoder, a killed worker, and a clip that crashes its decoder."""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.engines.watched import Engine, EngineError

# The clip that crashes: the decoder sees it by its last byte, which `sign` set.
POISON = 77
_POISONED = """

_decode_item = decode_item


def decode_item(task):
    import ctypes

    with task.files[0].open("rb") as stream:
        end = stream.read()[-8:]
    if int.from_bytes(end, "big") == {poison}:
        ctypes.string_at(0)  # a segmentation fault
    return _decode_item(task)
"""


Choice = Callable[[Engine], psutil.Process | None]


class Killer:
    """Kills one process of an engine with SIGKILL, as soon as `choose` finds it and a shard is there."""

    def __init__(self, engine: Engine, folder: Path, choose: Choice) -> None:
        self.killed: str | None = None
        self._engine, self._folder, self._choose = engine, folder, choose

    def __call__(self) -> None:
        """Looks once."""
        if self.killed is not None or not any(self._folder.glob("shard-*")):
            return
        victim = self._choose(self._engine)
        if victim is None:
            return
        try:
            name = victim.name()
            victim.send_signal(signal.SIGKILL)
        except psutil.Error:
            return
        self.killed = name


def a_decoder(engine: Engine) -> psutil.Process | None:
    """A process that decodes."""
    found = engine.decoders()
    return found[0] if found else None


def a_worker(engine: Engine) -> psutil.Process | None:
    """The engine's own process that has a decoder, or that decodes itself; None if that is the engine."""
    decoder = a_decoder(engine)
    if decoder is not None:
        try:
            parent = decoder.parent()
        except psutil.Error:
            return None
        return None if parent is None or parent.pid == engine.processes()[0].pid else parent
    ours = [process for process in engine.processes()[1:] if _title(process).startswith("ray::")]
    busy = [process for process in ours if "IDLE" not in _title(process)]
    return busy[0] if busy and engine.name == "ray-bare" else None


_LIMIT_SECONDS = 120.0  # without a fault an engine takes six; one of them tries a clip that crashes for ever
_CRASH = "clip crashes"
_FAULTS: dict[str, Choice | None] = {"nothing": None, "decoder killed": a_decoder, "worker killed": a_worker}


def drill(
    names: Sequence[str],
    lock: Path,
    workers: int,
    scratch: Path,
    source: Path,
    write: Callable[[dict[str, Any]], None],
) -> None:
    """Writes for each engine and fault how it ended, after how long, and whether the shards are right."""
    poisoned = scratch / "poisoned"
    shutil.copytree(source, poisoned)
    with (poisoned / "erv/media/decode.py").open("a", encoding="utf-8") as stream:
        stream.write(_POISONED.format(poison=POISON))
    result: dict[str, dict[str, Any]] = {}
    wanted: dict[str, list[Any]] = {}
    for name in names:
        result[name] = {}
        for code, faults in ((source, _FAULTS), (poisoned, {_CRASH: None})):
            try:
                engine = Engine(name, lock, workers, scratch / "drill.log", code)
            except EngineError as error:
                result[name] |= {fault: {"ended": str(error)[-600:]} for fault in faults}
                continue
            try:
                for fault, choose in faults.items():
                    result[name][fault] = _tried(engine, fault, scratch / "drill-shards", choose, wanted)
                    print(f"  {name}, {fault}: {result[name][fault]}", flush=True)
                    write({"complete": False, "engines": result})
            except EngineError as error:
                result[name][fault] = {"ended": str(error)[-600:]}
            finally:
                engine.stop()
    write({"complete": True, "engines": result})


def _tried(
    engine: Engine, fault: str, out: Path, choose: Choice | None, wanted: dict[str, list[Any]]
) -> dict[str, Any]:
    """Extracts all chunks; the first engine's shards, with and without crash, are what others must give."""
    shutil.rmtree(out, ignore_errors=True)
    killer = Killer(engine, out, choose) if choose else None
    until = time.monotonic() + _LIMIT_SECONDS

    def meanwhile() -> None:
        if killer is not None:
            killer()
        if time.monotonic() > until:
            engine.kill()

    try:
        found = engine.extract(0, engine.chunks, out, meanwhile)
    except EngineError:
        if time.monotonic() > until:
            return {"ended": f"killed, because it had not ended after {_LIMIT_SECONDS:g} s"}
        raise
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("shard-*"))]
    shutil.rmtree(out)
    if "failed" in found:
        return {"ended": found["failed"], "seconds": round(found["wall_seconds"], 1)}
    expected = wanted.setdefault("crash" if fault == _CRASH else "whole", digests)
    return {
        "ended": "complete",
        "seconds": round(found["wall_seconds"], 1),
        "killed": killer.killed if killer else None,
        "same_shards": digests == expected,
        "quarantined": found["rejected"],
        "shards": hashlib.sha256("".join(digests).encode()).hexdigest()[:16],
    }


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
