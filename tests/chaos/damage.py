"""Bits that flip in the cache, in the remote, in checkpoints and in kept shards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

from erv.storage.store import open_store
from tests.chaos.place import Place, flip_a_bit


def cached(place: Place, out: str, stage: str) -> None:
    """One bit of a cached output flips, its time kept, and the output has to come from the cache."""
    what = f"one bit of the cache of {out}"
    md5 = _object(place, out)
    flip_a_bit(place.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:], place.random)
    place.ledger.add(place.scene, "faults")
    _remove(place.path / out)
    if place.allow(place.erv("run", stage), what):
        place.check(what)
    else:
        place.repair()
    place.ledger.say(what)


def stored(place: Place, out: str, stage: str) -> None:
    """One bit of an object in the remote flips, and the output has to come from there."""
    what = f"one bit of the remote of {out}"
    md5 = _object(place, out)
    environment = place.environment
    store = open_store(environment)
    address = f"s3://{environment.dvc_bucket}/files/md5/{md5[:2]}/{md5[2:]}"
    good = (place.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_bytes()
    bad = bytearray(good)
    bad[place.random.randrange(len(bad))] ^= 1 << place.random.randrange(8)
    store.write(bytes(bad), address)
    place.ledger.add(place.scene, "faults")
    shutil.rmtree(place.path / ".dvc/cache")
    _remove(place.path / out)
    try:
        if place.allow(place.erv("run", stage), what):
            place.check(what)
        else:
            place.repair()
    finally:
        store.write(good, address)
    # The whole cache: the next trial may need any of it.
    place.repair()
    place.ledger.say(what)


def checkpoint(place: Place, stage: str) -> None:
    """A stage is killed after a checkpoint, in which one bit then flips."""
    what = f"one bit of a checkpoint of {stage}"
    folder = place.path / ".erv/checkpoints" / stage
    shutil.rmtree(folder, ignore_errors=True)
    started = place.start_stage(stage)
    deadline = time.monotonic() + 240
    while not (records := sorted(folder.rglob("complete.json"))) and started.process.poll() is None:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    if started.process.poll() is None:
        os.killpg(started.process.pid, signal.SIGKILL)
        place.ledger.add(place.scene, "kills")
    started.ended()
    place.nothing_runs(what)
    weights = [path for path in folder.rglob("*.safetensors") if path.stat().st_size > 1000]
    if records and weights:
        flip_a_bit(place.random.choice(sorted(weights)), place.random)
        place.ledger.add(place.scene, "faults")
    place.require(place.stage(stage), what)
    place.check(what)
    place.ledger.say(what if records and weights else f"{stage} left no checkpoint to damage")


def shard(place: Place, dataset: str) -> None:
    """A kept shard of an extraction gets a flipped bit; the next extraction must not use it."""
    what = f"one bit of a kept shard of {dataset}"
    kept = sorted((place.path / ".erv/extract" / dataset).rglob("*.parquet")) or sorted(
        path
        for path in (place.path / ".erv/extract" / dataset).rglob("*")
        if path.is_file() and path.stat().st_size > 5000
    )
    if not kept:
        place.require(place.stage(f"extract@{dataset}"), what)
        return
    victim = place.random.choice(kept)
    data = victim.read_bytes()
    victim.unlink()  # a hard link to the output, which must stay whole
    victim.write_bytes(data)
    flip_a_bit(victim, place.random)
    place.ledger.add(place.scene, "faults")
    place.require(place.stage(f"extract@{dataset}"), what)
    place.check(what)
    place.ledger.say(what)


def _object(place: Place, out: str) -> str:
    """The md5 of an object that holds an output, or of a random file of a folder."""
    md5 = place.outs[out]
    if not md5.endswith(".dir"):
        return md5
    listing = json.loads((place.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).read_text())
    files = [file for file in listing if (place.path / out / file["relpath"]).stat().st_size > 0]
    return str(place.random.choice(files)["md5"])


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
