"""Timeline of a finished `make demo`, from its own records: who waited for what, and when a core was idle.

    python benchmarks/demo.py                          # of this workspace
    python benchmarks/demo.py ../other --flow NAME     # of another one; of a certain flow run
    python benchmarks/demo.py --seconds sft=120 grpo=130

Before the flow it shows the steps of `make data`, from the times of the files that they wrote; each lasts
from the end of the one before. Of the flow it shows every stage with start, end and wall time, from Prefect's
record of the task; the critical path, the longest chain of stages in which each reads what the one before it
wrote; how long two, one or none of the slots were in use, and which stages ran alone; and what the slots
allow at best, the longer of the critical path and an even share of all stages. Stages are single-threaded,
except for the two processes of validate and extract: a free slot is an idle core.

The last table replays the flow on the graph of this checkout's `dvc.yaml`: each stage takes the time that
was recorded, or that `--seconds` gives for it or its group, and starts when `flows.graph` would start it.
So it tells what a change of the graph or of a stage is worth. What the record takes longer than the replay
of its own graph is what the flow does between stages.

Nothing is written to the workspace, and no server has to run.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for `flows` and `benchmarks`

from benchmarks.workspace import demanded  # noqa: E402
from erv.pipeline import PipelineStage, read_stages  # noqa: E402
from flows.graph import most_urgent_first  # noqa: E402

SLOTS = 2


@dataclass(frozen=True)
class Span:
    """A step between two times, in seconds since the epoch."""

    name: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


def main() -> None:
    """Prints the timeline of a workspace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", nargs="?", type=Path, default=Path())
    parser.add_argument("--flow", help="name of the flow run; the first that ended well if omitted")
    parser.add_argument("--seconds", nargs="*", default=[], metavar="STAGE=SECONDS", help="for the replay")
    options = parser.parse_args()
    demanded(options.workspace, ".erv/stack/prefect/prefect.db", "dvc.lock")
    with _database(options.workspace / ".erv/stack/prefect/prefect.db") as prefect:
        flow = _flow(prefect, options.flow)
        stages = _stages(prefect, flow)
    steps = _steps(options.workspace, flow)
    begin = steps[0].start if steps else flow.start
    print(f"flow {flow.name}: {flow.seconds:.0f} s; with the steps before it {flow.end - begin:.0f} s\n")
    _table("before the flow", steps, begin)
    _table("stages", stages, begin)
    recorded = _locked_graph(options.workspace, stages)
    path = critical_path(recorded, {span.name: span.seconds for span in stages})
    total = sum(span.seconds for span in stages if span.name in path)
    print(f"critical path, {total:.0f} s: {' > '.join(path)}\n")
    for busy, spent in _use(stages, flow).items():
        print(f"{busy} of {SLOTS} slots in use: {spent:6.1f} s")
    lonely = sorted(alone(stages).items(), key=lambda item: -item[1])
    print("alone: " + ", ".join(f"{name} {spent:.0f} s" for name, spent in lonely if spent >= 1))
    even = sum(span.seconds for span in stages) / SLOTS
    print(
        f"no order of these stages on {SLOTS} slots takes less than {max(total, even):.0f} s:"
        f" critical path {total:.0f} s, an even share {even:.0f} s"
    )
    seconds = {span.name: span.seconds for span in stages} | _given(options.seconds)
    for title, graph in (
        ("the recorded graph", recorded),
        ("the recorded graph with distill after sft, as it was at first", _distill_last(recorded)),
        ("the graph of this checkout", read_stages(ROOT)),
    ):
        unknown = [s.name for s in graph if _seconds(seconds, s.name) is None]
        if unknown:
            print(f"\nno replay on {title}: no time for {', '.join(unknown)}; give it with --seconds")
            continue
        replayed = replay(graph, {s.name: _seconds(seconds, s.name) or 0.0 for s in graph})
        print(f"\nreplay on {title}: {max(span.end for span in replayed):.0f} s for the stages alone")
    print()
    _table("stages in the last replay", replayed, 0.0)


@contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    """A copy of a SQLite database with what is in its write-ahead log."""
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, folder)
        connection = sqlite3.connect(Path(folder) / path.name)
        try:
            yield connection
        finally:
            connection.close()


def _flow(prefect: sqlite3.Connection, name: str | None) -> Span:
    rows = prefect.execute(
        "select name, start_time, end_time from flow_run where state_type = 'COMPLETED' order by start_time"
    ).fetchall()
    chosen = [row for row in rows if name in (None, row[0])]
    if not chosen:
        sys.exit(f"no completed flow run{f' {name!r}' if name else ''}; there is {[row[0] for row in rows]}")
    return Span(chosen[0][0], *map(_epoch, chosen[0][1:]))


def _stages(prefect: sqlite3.Connection, flow: Span) -> list[Span]:
    rows = prefect.execute(
        "select task_run.name, task_run.start_time, task_run.end_time from task_run join flow_run"
        " on task_run.flow_run_id = flow_run.id where flow_run.name = ? order by task_run.start_time",
        (flow.name,),
    )
    return [Span(name, _epoch(start), _epoch(end)) for name, start, end in rows]


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def _steps(workspace: Path, flow: Span) -> list[Span]:
    """What was done between the start of the servers and that of the flow, by the times of its files."""
    logs = workspace / ".erv/stack/logs"
    starts = [
        datetime.strptime(line[4:23], "%Y-%m-%d %H:%M:%S").astimezone().timestamp()
        for log in logs.glob("*.log")
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.startswith("--- ") and " start of " in line
    ]
    before = [start for start in starts if start < flow.start]
    if not before:
        return []
    begin = max(before)  # of several starts of the servers, the one that this flow used
    begin = min(start for start in before if start > begin - 60)
    ended = {
        f"sample: {path.stem}": path.stat().st_mtime
        for path in (workspace / ".erv/sample/.stamps").glob("*.json")
    }
    locks = [path.stat().st_mtime for path in (workspace / "data/sources").glob("*.lock.json")]
    if locks:
        ended["upload and pin"] = max(locks)
    done = {name: end for name, end in ended.items() if begin < end < flow.start}
    spans: list[Span] = []
    for name, end in sorted(done.items(), key=lambda item: item[1]):
        spans.append(Span(name, spans[-1].end if spans else begin, end))
    return [*spans, Span("start of the flow", spans[-1].end if spans else begin, flow.start)]


def _locked_graph(workspace: Path, stages: Sequence[Span]) -> list[PipelineStage]:
    """The graph that was run, by the paths in `dvc.lock`, each stage after its upstream."""
    lock: dict[str, Any] = yaml.safe_load((workspace / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    names = [span.name for span in sorted(stages, key=lambda span: span.end) if span.name in lock]
    outs = {name: [out["path"] for out in lock[name].get("outs", [])] for name in names}
    found = []
    for name in names:
        read = [dep["path"] for dep in lock[name].get("deps", [])]
        upstream = tuple(
            other
            for other in names
            if other != name and any(_overlap(a, b) for a in outs[other] for b in read)
        )
        found.append(PipelineStage(name, upstream, "", (), ()))
    return found


def _distill_last(graph: Sequence[PipelineStage]) -> list[PipelineStage]:
    """The graph in which distill waits for sft, as it did before `rollouts` was a stage (decision 11)."""
    changed = {
        stage.name: replace(stage, upstream=(*stage.upstream, "sft")) if stage.name == "distill" else stage
        for stage in graph
    }
    order = TopologicalSorter({name: stage.upstream for name, stage in changed.items()}).static_order()
    return [changed[name] for name in order if name in changed]


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def critical_path(graph: Sequence[PipelineStage], seconds: Mapping[str, float]) -> list[str]:
    """The chain of stages, each upstream of the next, that takes longest.

    Args:
        graph: the stages, each after its upstream.
        seconds: wall time of each.
    """
    best: dict[str, tuple[float, list[str]]] = {}
    for stage in graph:
        before = max((best[up] for up in stage.upstream if up in best), default=(0.0, []))
        best[stage.name] = (before[0] + seconds[stage.name], [*before[1], stage.name])
    return max(best.values())[1]


def replay(graph: Sequence[PipelineStage], seconds: Mapping[str, float], slots: int = SLOTS) -> list[Span]:
    """When each stage would run: the most urgent of those that are ready, as soon as a slot is free.

    Args:
        graph: the stages, each after its upstream.
        seconds: wall time of each.
        slots: stages at a time.
    """
    waiting = most_urgent_first(graph)
    spans: dict[str, Span] = {}
    now = 0.0
    while waiting:
        running = sum(span.end > now for span in spans.values())
        done = {name for name, span in spans.items() if span.end <= now}
        known = {stage.name for stage in graph}
        ready = [s for s in waiting if all(up in done for up in s.upstream if up in known)]
        for stage in ready[: slots - running]:
            spans[stage.name] = Span(stage.name, now, now + seconds[stage.name])
            waiting.remove(stage)
        now = min(span.end for span in spans.values() if span.end > now)
    return sorted(spans.values(), key=lambda span: span.start)


def _use(stages: Sequence[Span], flow: Span) -> dict[int, float]:
    """Seconds of the flow by the number of stages that ran at that time."""
    times = sorted({flow.start, flow.end, *(t for span in stages for t in (span.start, span.end))})
    found = dict.fromkeys(range(SLOTS, -1, -1), 0.0)
    for start, end in itertools.pairwise(times):
        found[min(SLOTS, sum(s.start <= start and s.end >= end for s in stages))] += end - start
    return found


def alone(stages: Sequence[Span]) -> dict[str, float]:
    """For how many seconds each stage ran without another beside it."""
    found: dict[str, float] = {}
    for start, end in itertools.pairwise(sorted({t for span in stages for t in (span.start, span.end)})):
        running = [span.name for span in stages if span.start <= start and span.end >= end]
        if len(running) == 1:
            found[running[0]] = found.get(running[0], 0.0) + end - start
    return found


def _given(texts: Sequence[str]) -> dict[str, float]:
    pairs = [text.partition("=") for text in texts]
    return {f"{name}=": float(value) for name, _, value in pairs}


def _seconds(known: Mapping[str, float], name: str) -> float | None:
    """The time given for a stage or its group, else the recorded one."""
    return next(
        (known[key] for key in (f"{name}=", f"{name.partition('@')[0]}=", name) if key in known), None
    )


def _table(title: str, spans: Sequence[Span], begin: float) -> None:
    width = max((len(span.name) for span in spans), default=0)
    print(f"{title:<{width}}   start     end  seconds")
    for span in spans:
        print(
            f"{span.name:<{width}}  {span.start - begin:6.1f}  {span.end - begin:6.1f}  {span.seconds:7.1f}"
        )
    print()


if __name__ == "__main__":
    main()
