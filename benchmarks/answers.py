"""Answers of raters while the process that keeps them is killed again and again: none lost, none twice.

    python -m benchmarks.answers
    python -m benchmarks.answers --answers 200 --databases sqlite

A writer process keeps answers in the database and acknowledges each. The client sends one after the other,
and kills the writer (SIGKILL) at random moments, in the middle of writing too. A new writer starts, and the
client sends again what was not acknowledged, with the same key. After each kill, everything that was
acknowledged must be there, and at the end every answer once.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `benchmarks` and `tests`

from erv.files import write_text
from erv.study.answers.connection import Answerbase
from erv.study.answers.database import Database, Rater
from erv.study.plan import TIE, read_study
from tests.support.large_study import write_large_study
from tests.support.postgres import postgres

RESULTS = Path(__file__).with_suffix(".json")
DATABASES = ("sqlite", "postgresql")
_ITEMS = 50  # per rater
_LONGEST = 60.0  # seconds until a writer has started or answered

_WRITER = """
import json, sys
from pathlib import Path
from erv.study.answers.database import Database, Rater
from erv.study.plan import read_study

study = read_study(Path(sys.argv[1]))
database = Database.open(sys.argv[2], study)
print("ready", flush=True)
for line in sys.stdin:
    sent = json.loads(line)
    rater = Rater(sent["rater"], sent["slot"], tuple(study.assignments[sent["slot"]]), None)
    database.add(rater, sent["item"], sent["value"], 1.0, sent["key"])
    print(sent["key"], flush=True)
"""


@dataclass
class Outcome:
    """What happened.

    Attributes:
        kills: of the writer.
        in_flight: kills while an answer was sent and not acknowledged.
        kept_before_its_acknowledgement: of these, how often the answer was in the database all the same; the
            client sent it again.
        lost: acknowledged answers that were gone after a kill.
        twice: answers that were there twice at the end.
        missing: answers that were not there at the end.
        seconds: from the first answer to the last, starts of writers included.
        between: seconds from sending to the acknowledgement, of each answer that met no kill.
    """

    kills: int = 0
    in_flight: int = 0
    kept_before_its_acknowledgement: int = 0
    lost: int = 0
    twice: int = 0
    missing: int = 0
    seconds: float = 0.0
    between: list[float] = field(default_factory=list)


def run(folder: Path, url: str, *, answers: int, seed: int, kills: int) -> Outcome:
    """Sends answers and kills the writer.

    Args:
        folder: for the study; its name is the study's.
        url: of the database.
        answers: how many.
        seed: of the moments of the kills.
        kills: how often the writer is killed, about.
    """
    chance = random.Random(seed)
    raters = -(-answers // _ITEMS)
    write_large_study(folder, clips=_ITEMS, raters=raters, overlap=raters, ratings=False, checks=0)
    study = read_study(folder)
    base = Answerbase(url)
    database = Database(base, study)
    people = [database.enter(invited.token) for invited in database.invite(raters)]
    sent = [_answer(rater, item, chance) for rater in people for item in rater.items][:answers]
    doomed = set(chance.sample(range(answers), min(kills, answers)))
    outcome, acknowledged = Outcome(), set()
    writer = _start(folder, url)
    begun = time.monotonic()
    for number, answer in enumerate(sent):
        if number in doomed:
            writer.stdin.write(json.dumps(answer) + "\n")
            writer.stdin.flush()
            # From before it is read to after it is acknowledged.
            time.sleep(chance.uniform(0, 2 * (sum(outcome.between[-20:]) / 20 or 0.01)))
            writer.kill()
            said = writer.stdout.read().split()
            writer.wait()
            outcome.kills += 1
            kept = {row["key"] for row in database.log()}
            if answer["key"] in said:
                acknowledged.add(answer["key"])
            else:
                outcome.in_flight += 1
                outcome.kept_before_its_acknowledgement += answer["key"] in kept
            outcome.lost += len(acknowledged - kept)
            writer = _start(folder, url)
        started = time.monotonic()
        if answer["key"] not in acknowledged:
            _send(writer, answer)
            outcome.between.append(time.monotonic() - started)
            acknowledged.add(answer["key"])
    outcome.seconds = time.monotonic() - begun
    writer.stdin.close()
    writer.wait()
    found = [(row["rater"], row["item"]) for row in database.log()]
    outcome.twice = len(found) - len(set(found))
    outcome.missing = len({(answer["rater"], answer["item"]) for answer in sent} - set(found))
    base.close()
    return outcome


def _answer(rater: Rater, item: str, chance: random.Random) -> dict[str, Any]:
    value = {"emotion": chance.choice(["anger", "fear", "sadness"]), "preferred": TIE}
    return {"rater": rater.id, "slot": rater.slot, "item": item, "value": value, "key": f"{rater.id}-{item}"}


def _start(folder: Path, url: str) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(folder), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    if (said := _line(writer)) != "ready":
        raise RuntimeError(f"the writer did not start: {said!r}")
    return writer


def _send(writer: subprocess.Popen[str], answer: dict[str, Any]) -> None:
    assert writer.stdin is not None
    writer.stdin.write(json.dumps(answer) + "\n")
    writer.stdin.flush()
    if (said := _line(writer)) != answer["key"]:
        raise RuntimeError(f"the writer acknowledged {said!r}, expected {answer['key']!r}")


def _line(writer: subprocess.Popen[str]) -> str:
    assert writer.stdout is not None
    if not select.select([writer.stdout], [], [], _LONGEST)[0]:
        raise RuntimeError(f"the writer said nothing for {_LONGEST:g} s")
    return writer.stdout.readline().strip()


def main() -> None:
    """Prints the figures and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    command = f"python -m benchmarks.answers --answers {options.answers} --kills {options.kills}"
    results: dict[str, Any] = {"command": command, "answers": options.answers}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in options.databases:
            url = (
                f"sqlite:///{folder}/answers.db" if name == "sqlite" else stack.enter_context(postgres()).url
            )
            found = run(folder / name, url, answers=options.answers, seed=options.seed, kills=options.kills)
            between = sorted(found.between)
            results[name] = {
                "kills": found.kills,
                "killed_with_an_answer_in_flight": found.in_flight,
                "of_these_kept_already": found.kept_before_its_acknowledgement,
                "lost": found.lost,
                "twice": found.twice,
                "missing": found.missing,
                "milliseconds_per_answer": {
                    "median": round(1000 * between[len(between) // 2], 2),
                    "of_100_slower_than_this_1": round(1000 * between[int(0.99 * len(between))], 2),
                },
            }
            print(f"{name}: {json.dumps(results[name])}")
    write_text(json.dumps(results, indent=2) + "\n", options.results)
    bad = [
        name for name in options.databases if any(results[name][key] for key in ("lost", "twice", "missing"))
    ]
    if bad:
        raise SystemExit(f"answers were lost or kept twice: {', '.join(bad)}")


if __name__ == "__main__":
    main()
