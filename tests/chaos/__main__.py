"""`python -m tests.chaos`: injects faults into real runs of the tiny pipeline and judges what comes of them.

Each trial starts from a finished run, injects one fault, runs the same command again without it and compares
every output, byte by byte, with that run. It exits with 1 if anything was lost, duplicated, silently wrong or
unclear, if a scene could not be tried, or if too few processes were killed.
"""

from __future__ import annotations

import argparse
import functools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import clocks, damage, disk, kills, servers
from tests.chaos.ledger import Ledger
from tests.chaos.place import Place

Trial = tuple[str, Callable[[Place], None]]
MIN_KILLS = 50
DAY = 86400.0


def plan(stages: list[str], outs: dict[str, str], chance: random.Random) -> list[Trial]:
    """All trials, in random order: first one of each scene, then the other kills, then the rest."""
    part = functools.partial
    by_scene: dict[str, list[Callable[[Place], None]]] = {
        "kill a stage": [part(kills.stage_at_random, name=name) for name in stages],
        "kill at the lock": [
            part(kills.at_the_lock, name=chance.choice(["ingest@mafw", "ingest@dfew", "ingest@reasoning"]))
            for _ in range(18)
        ],
        "kill a flow": [
            part(kills.flow_at_random, target=chance.choice(["ingest", "validate@mafw", "extract@mafw"]))
            for _ in range(10)
        ],
        "kill a server": [part(servers.killed, server=name) for name in ("s3", "mlflow", "prefect") * 2],
        "S3 faults": [
            part(servers.faulty_storage, fault=fault, command=command)
            for command in ("pull", "stage", "data pin", "publish")
            for fault in ("500", "503", "cuts", "crawls", "refuses")
        ],
        "full disk": [
            part(disk.full, stage=name)
            for name in ("ingest@mafw", "extract@mafw", "sft", "train_erv", "report")
        ],
        "damaged cache": [
            part(damage.cached, out="models/policy/sft", stage="sft"),
            part(damage.cached, out="data/shards/mafw", stage="extract@mafw"),
            part(damage.cached, out="eval/erv/predictions.parquet", stage="evaluate@erv"),
        ],
        "damaged remote": [
            part(damage.stored, out="models/policy/sft", stage="sft"),
            part(damage.stored, out="data/shards/mafw", stage="extract@mafw"),
        ],
        "damaged checkpoint": [
            part(damage.checkpoint, stage=name) for name in ("sft", "grpo@erv", "train_erv")
        ],
        "damaged shard": [part(damage.shard, dataset=name) for name in ("mafw", "dfew")],
        "clock jump": [
            part(clocks.jumps, stage=name, shift=shift, after=after)
            for name, shift, after in (
                ("ingest@mafw", -2 * DAY, 0),
                ("sft", 3 * DAY, 4),
                ("extract@mafw", -3600, 2),
                ("grpo@erv", -2 * DAY, 5),
            )
        ],
        "two at once": [
            servers.two_publish,
            servers.two_runs,
            part(servers.two_stages, names=("train_erv", "ingest@mafw")),
            servers.two_publish,
        ],
    }
    assert all(
        out in outs for out in ("models/policy/sft", "data/shards/mafw", "eval/erv/predictions.parquet")
    )
    first, rest = [], []
    for scene, trials in by_scene.items():
        chance.shuffle(trials)
        first.append((scene, trials[0]))
        rest += [(scene, trial) for trial in trials[1:]]
    chance.shuffle(first)
    chance.shuffle(rest)
    # Kills come before the other repetitions: their number is promised.
    rest.sort(key=lambda trial: not trial[0].startswith("kill"))
    return [*first, *rest]


def main() -> int:
    """Runs the trials until all are done or the time is over."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=29.0, help="no trial starts later (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of moments, victims and bits (%(default)s)")
    parser.add_argument("--only", metavar="SCENE", help="one scene alone; for work on the harness")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are to stop, too
    folder = Path(tempfile.mkdtemp(prefix="erv-chaos-"))
    ledger = Ledger()
    place = Place(folder, ledger, arguments.seed)
    failed = True
    try:
        ledger.say(f"seed {arguments.seed}; the reference run, without faults")
        place.make_reference()
        stages = sorted(place.workspace.lock())
        trials = plan(stages, place.outs, random.Random(arguments.seed))
        if arguments.only:
            trials = [trial for trial in trials if trial[0] == arguments.only]
        ledger.say(f"{len(trials)} trials")
        end = ledger.started + 60 * arguments.minutes
        done = 0
        for scene, trial in trials:
            if time.monotonic() > end:
                break
            place.scene = scene
            trial(place)
            done += 1
        place.scene = ""
        ledger.say("the last run: everything must be unchanged")
        last = place.erv("run")
        if last.code != 0 or f"{len(stages)} stages: {len(stages)} unchanged" not in last.text:
            ledger.damage("kill a flow", "silently wrong", f"the last run: {last.text[-600:]}")
        print(f"\n{done} of {len(trials)} trials, seed {arguments.seed}\n{ledger.table()}")
        reasons = [] if arguments.only and not ledger.findings else ledger.failures(MIN_KILLS)
        failed = bool(reasons)
        print("failed: " + ", ".join(reasons) if failed else "passed")
    finally:
        place.close()
        if failed:
            print(f"kept for a look: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
