"""Which stages need nothing, asked of DVC once for all of them: `python -m erv.pipeline.unchanged
STAGE...`.

`dvc repro` answers for one stage, and reads the whole pipeline to do so. Where most stages need nothing, that
is most of a run. So DVC is asked once, and only what it does not call unchanged is handed to `repro`.

The answer holds for a stage only if it holds for everything above it, so nothing that runs later can make it
wrong. What changes from outside while a run goes on is noticed too: the answer is trusted for a short time.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from erv.collector import collect_seldom
from erv.pipeline.graph import PipelineStage
from erv.pipeline.run import StageResult, run_guarded

logger = logging.getLogger(__name__)

TRUSTED_SECONDS = 60.0
_MARK = "unchanged: "


@dataclass(frozen=True)
class Unchanged:
    """The stages that DVC called unchanged.

    Attributes:
        names: with each stage, all that it depends on.
        asked: when, on the monotonic clock, in seconds.
    """

    names: frozenset[str]
    asked: float

    def result(self, name: str) -> StageResult | None:
        """What `repro` would say of a stage that needs nothing; None if it has to be asked."""
        started = time.monotonic()
        if name not in self.names or started - self.asked > TRUSTED_SECONDS:
            return None
        return StageResult(name, "unchanged", time.monotonic() - started)


def ask_unchanged(
    stages: Sequence[PipelineStage],
    *,
    forced: Collection[str] = (),
    cancelled: Callable[[], bool] = lambda: False,
    environment: Mapping[str, str] | None = None,
    workspace: str | Path = ".",
) -> Unchanged:
    """Asks DVC which stages need nothing: same command, dependencies, parameters, and outputs in place.

    Whatever keeps DVC from answering for a stage, it is not among them: `repro` has the remedies.

    Args:
        stages: from `select`, each after all that it depends on, which is among them.
        forced: stages that will run whatever DVC says, and so may change what depends on them.
        cancelled: polled several times a second; once it returns True, DVC is stopped.
        environment: the environment of DVC; this process's by default.
        workspace: the top of the repository.

    Raises:
        StageCancelledError: `cancelled` returned True.
    """
    asked = time.monotonic()
    found: set[str] = set()

    def note(line: str) -> None:
        if line.startswith(_MARK):
            found.add(line.removeprefix(_MARK))
        elif line.strip():
            logger.debug("%s", line)

    run_guarded(
        [sys.executable, "-m", "erv.pipeline.unchanged", *(stage.name for stage in stages)],
        what="unchanged stages",
        on_line=note,
        cancelled=cancelled,
        environment=environment,
        workspace=workspace,
    )
    names: set[str] = set()
    for stage in stages:
        if stage.name in found and stage.name not in forced and names.issuperset(stage.upstream):
            names.add(stage.name)
    return Unchanged(frozenset(names), asked)


def main(names: Sequence[str]) -> int:
    """Prints which of the named stages of this folder's pipeline DVC would skip."""
    collect_seldom()
    from dvc.repo import Repo

    wanted = frozenset(names)

    with Repo(".", _wait_for_lock=True) as repo, repo.lock:
        for stage in repo.index.stages:
            if stage.addressing not in wanted:
                continue
            try:
                changed = stage.changed()
            except Exception as error:  # any library's: a damaged listing in the cache, say
                print(f"{stage.addressing}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
                continue
            if not changed:
                print(f"{_MARK}{stage.addressing}", flush=True)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
